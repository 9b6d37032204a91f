//! Who is signed in: tokens, sessions, the sign-in itself, and the types that handlers ask for.

mod actor;
mod begin;
mod browser;
mod codes;
mod credentials;
mod enter;
mod fields;
mod invite;
mod key;
mod links;
mod pages;
mod session;
mod setup_code;
mod sign_in;
mod signed_in;
mod tickets;

pub use actor::{Actor, Admin};
pub(crate) use actor::{MachineOwner, PROOF_HEADER};
pub(crate) use begin::{issue, text_of};
pub(crate) use browser::BROWSER_COOKIE_NAME;
pub(crate) use credentials::{API_KEY_HEADER, COOKIE_NAME, is_token_shaped};
pub(crate) use enter::enter;
pub(crate) use invite::{NewInvite, join, join_page, make_invite};
pub use key::{KeyError, signing_key};
pub(crate) use links::SignInLinks;
pub(crate) use pages::token_life;
pub(crate) use pages::{
    generate_token, login, logout, register, register_page, sign_in_page, token_page,
};
pub use session::{NewSession, PROOF_LIFE, Session, SessionKind, Sessions, SessionsError};
pub use setup_code::SetupCode;
pub use sign_in::SignInError;
pub(crate) use sign_in::{Claim, authenticate};
pub(crate) use signed_in::accepts_html;
pub use signed_in::{SignedIn, require_session};
pub(crate) use tickets::{
    DEFAULT_MINUTES, MAX_MINUTES, TICKET_PATHS, TicketPath, Tickets, take_from_address,
};
