//! `sentineld connect`.

use super::arguments::ConnectOptions;
use super::console::{ask, complain, say};
use super::run::asked_to_stop;
use crate::connect::{
    AccountError, Connected, Fingerprint, Place, Refused, RefusedReason, Target, Token, Trust,
    UpstreamError, VARIABLE,
};
use crate::log;
use anyhow::{Context as _, bail};
use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;

/// Stands for standard input in place of a file.
const STANDARD_INPUT: &str = "-";

/// Opens the door until Ctrl-C or SIGTERM.
pub(super) fn connect(options: &ConnectOptions) -> anyhow::Result<ExitCode> {
    log::start_on_console()?;
    let target = Target::parse(&options.address)?;
    let trust = match &options.fingerprint {
        Some(text) => Trust::Pinned(text.parse::<Fingerprint>()?),
        None => Trust::Public,
    };
    let token = token(options.token_file.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let place = Place::bind(options.listen).await?;
        if !target.is_secure() {
            complain(&format!(
                "Warning: {target} is not encrypted. Everybody on the way can read the token and the pictures."
            ));
        }
        let connected = match Connected::reach(&target, trust, token.clone()).await {
            Err(AccountError::Upstream(UpstreamError::Certificate(refused))) => {
                let pin = confirm(&target, trust, &refused)?;
                Connected::reach(&target, Trust::Pinned(pin), token)
                    .await
                    .with_context(|| format!("{target} cannot be used"))?
            }
            reached => reached.with_context(|| format!("{target} cannot be used"))?,
        };
        say(&format!(
            "Programs on this computer reach ComfyUI at http://{}, as {} of {target}. Ctrl-C ends it.",
            place.address(),
            connected.name(),
        ));
        connected.serve(place, asked_to_stop()).await;
        Ok(ExitCode::SUCCESS)
    })
}

/// The token of the file, else of the variable, else of standard input when that is no terminal.
fn token(file: Option<&Path>) -> anyhow::Result<Token> {
    match file {
        Some(path) if path.as_os_str() == STANDARD_INPUT => Ok(Token::from_standard_input()?),
        Some(path) => Ok(Token::from_file(path)?),
        None => match std::env::var(VARIABLE) {
            Ok(text) => Token::parse(&text).with_context(|| VARIABLE),
            Err(_) => bail!(
                "no token was given: make an API token on Sentinel's account page, keep it in a file, and add --token-file FILE (\"-\" reads standard input; the variable {VARIABLE} is read too)"
            ),
        },
    }
}

/// Lets the person at the terminal confirm a certificate that nobody vouches for; else tells what to
/// do. A given fingerprint that does not fit is never confirmed away.
fn confirm(target: &Target, trust: Trust, refused: &Refused) -> anyhow::Result<Fingerprint> {
    let shown = refused.fingerprint;
    if let Trust::Pinned(given) = trust {
        match &refused.reason {
            RefusedReason::NotValid(fault) => bail!(
                "the certificate of {target} belongs to the given fingerprint, but is not valid: {fault}"
            ),
            RefusedReason::OtherFingerprint | RefusedReason::Unknown => bail!(
                "the certificate of {target} has another fingerprint than the given one; nothing was sent.\n  \
                 given: {given}\n  shown: {shown}\n\
                 Either Sentinel has a new certificate, or another machine answers in its place. \
                 Compare with the fingerprint on Sentinel's page /trust, seen at that machine itself."
            ),
        }
    }
    let reason = match &refused.reason {
        RefusedReason::NotValid(fault) => format!(" ({fault})"),
        RefusedReason::OtherFingerprint | RefusedReason::Unknown => String::new(),
    };
    let text = format!(
        "This computer does not know the certificate of {target}{reason}. Its fingerprint (SHA-256) is\n  {shown}\n\
         Compare it with the one on Sentinel's page /trust, seen at that machine itself. If they are equal, add\n  \
         --fingerprint {shown}"
    );
    if !std::io::stdin().is_terminal() {
        bail!("{text}");
    }
    complain(&text);
    if ask("Trust it for this time? Type yes: ")?.trim() == "yes" {
        Ok(shown)
    } else {
        bail!("the certificate was not trusted; nothing was sent")
    }
}
