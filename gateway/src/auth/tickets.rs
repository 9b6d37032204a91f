//! Tickets: what stands in an address where no header can be set (`<img>`, `<video>`, sockets of
//! browsers). A ticket opens one place to reading for some minutes, ends with the session that made
//! it, and carries no admin rights. Tickets live in memory alone.
//!
//! The door takes a ticket out of the address before anything else sees it, so that none gets into
//! a log, an audit row, a page or ComfyUI.

use super::Session;
use super::credentials::is_token_shaped;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::REFERER;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Uri};
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Name of the query parameter.
const PARAMETER: &str = "ticket";
/// Every ticket begins with this, so that another program's parameter of that name passes.
const MARK: &str = "tkt_";
/// Characters of 32 random bytes.
const SECRET_LENGTH: usize = 43;
/// Live tickets of one session; the oldest gives way.
const MAX_PER_SESSION: usize = 32;
/// Live tickets of one account; the oldest gives way.
const MAX_PER_ACCOUNT: usize = 256;
/// Life of a ticket when nothing is said, minutes.
pub(crate) const DEFAULT_MINUTES: u32 = 10;
/// Longest life, minutes.
pub(crate) const MAX_MINUTES: u32 = 60;

/// Where tickets can lead: pictures and files of one's own, and ComfyUI's events.
pub(crate) const TICKET_PATHS: [&str; 9] = [
    "/view",
    "/ws",
    "/userdata",
    "/experiment/models",
    "/api/view",
    "/api/ws",
    "/api/userdata",
    "/api/assets",
    "/api/experiment/models",
];

/// One of [`TICKET_PATHS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TicketPath(&'static str);

impl TicketPath {
    /// The path of the list that reads like this.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        TICKET_PATHS
            .into_iter()
            .find(|path| *path == text)
            .map(Self)
    }

    fn covers(self, path: &str) -> bool {
        path.strip_prefix(self.0)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// A ticket as a request brings it.
#[derive(Clone)]
pub(crate) struct PresentedTicket(String);

/// Tickets stay out of the log.
impl fmt::Debug for PresentedTicket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PresentedTicket")
    }
}

struct Ticket {
    session: Arc<Session>,
    path: TicketPath,
    until: Instant,
}

impl Ticket {
    fn is_live(&self, now: Instant) -> bool {
        now < self.until && !self.session.ended().is_cancelled()
    }
}

/// The tickets that count.
#[derive(Default)]
pub(crate) struct Tickets(Mutex<HashMap<[u8; 32], Ticket>>);

impl fmt::Debug for Tickets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Tickets")
    }
}

impl Tickets {
    /// Makes a ticket.
    pub(crate) fn make(
        &self,
        session: &Arc<Session>,
        path: TicketPath,
        life: Duration,
        now: Instant,
    ) -> String {
        let secret: [u8; 32] = rand::random();
        let ticket = format!("{MARK}{}", URL_SAFE_NO_PAD.encode(secret));
        let mut tickets = self.0.lock();
        tickets.retain(|_, ticket| ticket.is_live(now));
        make_room(&mut tickets, MAX_PER_SESSION, |other| {
            other.id == session.id
        });
        make_room(&mut tickets, MAX_PER_ACCOUNT, |other| {
            other.user == session.user
        });
        tickets.insert(
            digest(&ticket),
            Ticket {
                session: Arc::clone(session),
                path,
                until: now + life,
            },
        );
        ticket
    }

    /// The session of a ticket, for a request that the ticket covers.
    pub(crate) fn session(
        &self,
        presented: &PresentedTicket,
        method: &Method,
        path: &str,
        now: Instant,
    ) -> Option<Arc<Session>> {
        // Upgrades are GET as well.
        if !matches!(*method, Method::GET | Method::HEAD) {
            return None;
        }
        self.0
            .lock()
            .get(&digest(&presented.0))
            .filter(|ticket| ticket.is_live(now) && ticket.path.covers(path))
            .map(|ticket| Arc::clone(&ticket.session))
    }
}

/// Leaves room for one more ticket of those sessions.
fn make_room(
    tickets: &mut HashMap<[u8; 32], Ticket>,
    limit: usize,
    is_of: impl Fn(&Session) -> bool,
) {
    let mut own: Vec<([u8; 32], Instant)> = tickets
        .iter()
        .filter(|(_, ticket)| is_of(&ticket.session))
        .map(|(digest, ticket)| (*digest, ticket.until))
        .collect();
    own.sort_by_key(|(_, until)| *until);
    let surplus = (own.len() + 1).saturating_sub(limit);
    for (digest, _) in own.into_iter().take(surplus) {
        tickets.remove(&digest);
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// Takes tickets, and tokens of ours that somebody wrote into the address, out of a request's
/// address and of its `Referer`. Returns the ticket that the request is to be judged by.
pub(crate) fn take_from_address(
    uri: &mut Uri,
    headers: &mut HeaderMap,
    is_our_token: impl Fn(&str) -> bool,
) -> Option<PresentedTicket> {
    if let Some(referer) = headers.get(REFERER).and_then(|line| line.to_str().ok())
        && let Some((before, query)) = referer.split_once('?')
        && let Some((kept, _)) = without_secrets(query, &is_our_token)
    {
        match HeaderValue::from_str(&joined(before, &kept)) {
            Ok(cleaned) => headers.insert(REFERER, cleaned),
            Err(_) => headers.remove(REFERER),
        };
    }
    let (kept, ticket) = without_secrets(uri.query()?, &is_our_token)?;
    let cleaned = joined(uri.path(), &kept);
    *uri = cleaned
        .parse::<PathAndQuery>()
        .map(Uri::from)
        .unwrap_or_default();
    ticket.map(PresentedTicket)
}

fn joined(before: &str, query: &str) -> String {
    if query.is_empty() {
        before.to_owned()
    } else {
        format!("{before}?{query}")
    }
}

/// The query without its secrets, and the ticket if there was one; two tickets are none that
/// counts. `None`: there is nothing to take out.
fn without_secrets(
    query: &str,
    is_our_token: impl Fn(&str) -> bool,
) -> Option<(String, Option<String>)> {
    let mut tickets = Vec::new();
    let mut is_changed = false;
    let mut kept = Vec::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decode_str(value).decode_utf8_lossy();
        if is_ticket_shaped(&value) {
            is_changed = true;
            // Under another name it is taken out and opens nothing.
            if name == PARAMETER {
                tickets.push(value);
            } else {
                tickets.push(Cow::Borrowed(""));
            }
        } else if is_token_shaped(&value) && is_our_token(&value) {
            is_changed = true;
        } else {
            kept.push(pair);
        }
    }
    if !is_changed {
        return None;
    }
    let ticket = match tickets.as_slice() {
        [] => None,
        [ticket] => Some(ticket.to_string()),
        _ => Some(String::new()),
    };
    Some((kept.join("&"), ticket))
}

fn is_ticket_shaped(text: &str) -> bool {
    text.strip_prefix(MARK).is_some_and(|secret| {
        secret.len() == SECRET_LENGTH
            && secret
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::session::test_session;

    fn presented(ticket: &str) -> PresentedTicket {
        PresentedTicket(ticket.to_owned())
    }

    #[test]
    fn a_ticket_reads_one_place_for_its_time_and_ends_with_its_session() {
        let tickets = Tickets::default();
        let now = Instant::now();
        let session = Arc::new(test_session("1", "anna"));
        let path = TicketPath::parse("/view").unwrap();
        let life = Duration::from_secs(60);
        let ticket = presented(&tickets.make(&session, path, life, now));
        let opens = |method: &Method, path: &str, at: Instant| {
            tickets.session(&ticket, method, path, at).is_some()
        };
        assert!(opens(&Method::GET, "/view", now) && opens(&Method::HEAD, "/view/x", now));
        for (method, path) in [
            (Method::POST, "/view"),
            (Method::PUT, "/view"),
            (Method::OPTIONS, "/view"),
            (Method::GET, "/viewer"),
            (Method::GET, "/api/view"),
            (Method::GET, "/"),
            (Method::GET, "//view"),
        ] {
            assert!(!opens(&method, path, now), "{method} {path}");
        }
        assert!(!opens(&Method::GET, "/view", now + life));
        let other = presented("tkt_x");
        assert!(
            tickets
                .session(&other, &Method::GET, "/view", now)
                .is_none()
        );
        session.ended().cancel();
        assert!(!opens(&Method::GET, "/view", now));
    }

    #[test]
    fn paths_are_those_of_the_list() {
        for path in TICKET_PATHS {
            assert!(TicketPath::parse(path).is_some(), "{path}");
        }
        for path in [
            "",
            "/",
            "/api",
            "/view/",
            "/prompt",
            "/sentinel/api",
            "view",
        ] {
            assert!(TicketPath::parse(path).is_none(), "{path}");
        }
    }

    #[test]
    fn their_number_is_bounded_and_the_oldest_gives_way() {
        let tickets = Tickets::default();
        let now = Instant::now();
        let path = TicketPath::parse("/ws").unwrap();
        let make = |session: &Arc<Session>, seconds: u64| {
            presented(&tickets.make(session, path, Duration::from_secs(600 + seconds), now))
        };
        let opens =
            |ticket: &PresentedTicket| tickets.session(ticket, &Method::GET, "/ws", now).is_some();
        let session = Arc::new(test_session("1", "anna"));
        let of_bert = make(&Arc::new(test_session("b", "bert")), 0);
        let made: Vec<_> = (0..=MAX_PER_SESSION as u64)
            .map(|second| make(&session, second))
            .collect();
        assert!(!opens(&made[0]) && opens(&made[1]));
        for number in 0..20 {
            let session = Arc::new(test_session(&format!("s{number}"), "anna"));
            for second in 0..MAX_PER_SESSION as u64 {
                make(&session, 100 + second);
            }
        }
        assert_eq!(tickets.0.lock().len(), MAX_PER_ACCOUNT + 1);
        assert!(opens(&of_bert), "another account's tickets stay");
    }

    #[test]
    fn secrets_are_taken_out_of_addresses() {
        let ticket = format!("tkt_{}", "x".repeat(SECRET_LENGTH));
        let token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln";
        let foreign = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.Zm9y";
        let escaped = ticket.replace('t', "%74");
        let table = [
            ("/view?a=1&ticket=T&b=2", "/view?a=1&b=2", Some("T")),
            ("/view?ticket=T", "/view", Some("T")),
            ("/view?ticket=E&a", "/view?a", Some("T")),
            ("/view?ticket=T&ticket=T", "/view", Some("")),
            ("/view?t=T", "/view", Some("")),
            ("/view?ticket=12345", "/view?ticket=12345", None),
            ("/view?token=J&a=1", "/view?a=1", None),
            ("/view?token=F&a=1", "/view?token=F&a=1", None),
            ("/view?a=%20&&b", "/view?a=%20&&b", None),
            ("/view", "/view", None),
        ];
        for (target, expected, found) in table {
            let fill = |text: &str| {
                text.replace("=T", &format!("={ticket}"))
                    .replace("=E", &format!("={escaped}"))
                    .replace("=J", &format!("={token}"))
                    .replace("=F", &format!("={foreign}"))
            };
            let mut uri: Uri = fill(target).parse().unwrap();
            let mut headers = HeaderMap::new();
            let referer = format!("http://localhost{}", fill(target));
            headers.insert(REFERER, referer.parse().unwrap());
            let taken = take_from_address(&mut uri, &mut headers, |text| text == token);
            assert_eq!(uri.to_string(), fill(expected), "{target}");
            let taken = taken.map(|ticket| ticket.0);
            let found = found.map(|found| found.replace('T', &ticket));
            assert_eq!(taken, found, "{target}");
            let referer = headers[REFERER].to_str().unwrap();
            assert_eq!(referer, format!("http://localhost{}", fill(expected)));
        }
    }
}
