//! The last step: settings and the first admin at once, or neither.

use crate::accounts::{
    Account, AccountChange, AccountsError, HashError, PasswordFault, UserName, UserNameFault,
    check_password,
};
use crate::app::App;
use crate::clock;
use crate::comfyui::Installation;
use crate::config::{ConfigErrors, ConfigFileError, Fault, Settings};
use crate::store::StoreError;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::Arc;

/// What was chosen.
#[derive(Clone, Debug)]
pub(crate) struct Finish {
    pub(crate) directory: String,
    pub(crate) python: String,
    /// `None`: as they are, or as a job found out.
    pub(crate) arguments: Option<Vec<String>>,
    pub(crate) admin: Option<(String, String)>,
    pub(crate) is_shared: bool,
    pub(crate) separate_users: bool,
    pub(crate) manager_admin_only: bool,
}

/// Why it could not be finished; nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum FinishError {
    /// There is no admin, and none was named.
    #[error("the first admin is missing")]
    NoAdmin,
    /// There is an admin already.
    #[error("there is an admin already")]
    HasAdmin,
    /// The name cannot be used.
    #[error(transparent)]
    Name(#[from] UserNameFault),
    /// The password cannot be used.
    #[error(transparent)]
    Password(#[from] PasswordFault),
    /// The password could not be hashed.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The settings cannot be used or written.
    #[error(transparent)]
    Config(#[from] ConfigFileError),
    /// The account cannot be written.
    #[error(transparent)]
    Accounts(#[from] AccountsError),
    /// Old sign-ins could not be ended.
    #[error(transparent)]
    Sessions(#[from] StoreError),
}

/// Writes the settings and makes the first admin; then ComfyUI starts anew. Returns the admin's
/// name, if one was made.
pub(crate) async fn finish(
    app: &Arc<App>,
    chosen: Finish,
) -> Result<Option<UserName>, FinishError> {
    let settings = settings(app, &chosen)?;
    let awaits_first = app.accounts.awaits_first_account();
    let first = match chosen.admin {
        Some(_) if !awaits_first => return Err(FinishError::HasAdmin),
        None if awaits_first => return Err(FinishError::NoAdmin),
        None => None,
        Some((name, password)) => {
            let name = UserName::parse(&name)?;
            check_password(&password)?;
            let hash = app.hasher.hash(password).await?;
            Some((Account::new(&name, hash, true, clock::now()), name))
        }
    };
    let made = {
        let app = Arc::clone(app);
        let work = move || {
            app.config
                .change_together(&settings, || -> Result<_, FinishError> {
                    let Some((account, name)) = first else {
                        return Ok(None);
                    };
                    let id = account.id.clone();
                    app.accounts.add_first(account)?;
                    app.engines.first_account_is_made(&id);
                    app.setup_code.spend();
                    Ok(Some(name))
                })
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| HashError::Failed)?
    }?;
    app.config_changed();
    app.sharing.apply().await;
    app.engines.restart();
    Ok(made)
}

fn settings(app: &App, chosen: &Finish) -> Result<Settings, FinishError> {
    let mut comfyui = Map::new();
    comfyui.insert("dir".to_owned(), json!(chosen.directory));
    comfyui.insert("python".to_owned(), json!(chosen.python));
    if let Some(arguments) = arguments(app, chosen) {
        comfyui.insert("args".to_owned(), json!(arguments));
    }
    let mut members = Map::new();
    members.insert("comfyui".to_owned(), Value::Object(comfyui));
    members.insert("sharing".to_owned(), json!({ "enabled": chosen.is_shared }));
    members.insert("separate_users".to_owned(), json!(chosen.separate_users));
    members.insert(
        "manager_admin_only".to_owned(),
        json!(chosen.manager_admin_only),
    );
    let mut faults = Vec::new();
    let mut fault = |key: &str, message: String| {
        faults.push(Fault {
            key: key.to_owned(),
            message,
        });
    };
    let is_named = !chosen.directory.is_empty() && !super::is_demo(&chosen.directory);
    if is_named && let Err(error) = Installation::open(Path::new(&chosen.directory)) {
        fault("comfyui.dir", error.to_string());
    }
    let python = Path::new(&chosen.python);
    if python.components().count() > 1 && !python.is_file() {
        fault("comfyui.python", "there is no such program".to_owned());
    }
    if let Some(arguments) = &chosen.arguments
        && let Err(error) = crate::comfyui::check_user_arguments(arguments)
    {
        fault("comfyui.args", error.to_string());
    }
    if !faults.is_empty() {
        return Err(ConfigFileError::from(ConfigErrors(faults)).into());
    }
    Ok(Settings::from_members(members).map_err(ConfigFileError::from)?)
}

/// Those that were chosen, else those in force with what a job found out to be needed.
fn arguments(app: &App, chosen: &Finish) -> Option<Vec<String>> {
    if chosen.arguments.is_some() {
        return chosen.arguments.clone();
    }
    let needed = app.setup.result_for(&chosen.directory)?.arguments;
    let mut arguments = app.config.current().comfyui.args.clone();
    let missing: Vec<String> = needed
        .into_iter()
        .filter(|argument| !arguments.contains(argument))
        .collect();
    if missing.is_empty() {
        return None;
    }
    arguments.extend(missing);
    Some(arguments)
}

/// Makes an account an admin with this password, also when nobody remembers the old one; all its
/// sign-ins end. Whether the account is new.
pub(crate) async fn set_admin(
    app: &Arc<App>,
    name: &str,
    password: String,
) -> Result<bool, FinishError> {
    let name = UserName::parse(name)?;
    check_password(&password)?;
    let hash = app.hasher.hash(password).await?;
    let known = app.accounts.current().find(name.as_str()).cloned();
    let Some(account) = known else {
        let account = Account::new(&name, hash, true, clock::now());
        app.accounts.add(account)?;
        app.setup_code.spend();
        return Ok(true);
    };
    let change = AccountChange {
        admin: Some(true),
        disabled: Some(false),
        password_hash: Some(hash),
        ..AccountChange::default()
    };
    app.accounts.change(&account.id, change)?;
    app.sessions.end_user(&account.id, None).await?;
    Ok(false)
}
