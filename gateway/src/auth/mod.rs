//! Who is signed in: tokens, sessions, the sign-in itself, and the types that handlers ask for.

mod fields;
mod key;
mod pages;
mod session;
mod setup_code;
mod sign_in;
mod signed_in;

pub use key::{KeyError, signing_key};
pub(crate) use pages::{
    generate_token, login, logout, register, register_page, sign_in_page, token_page,
};
pub(crate) use pages::{text_of, token_life};
pub use session::{NewSession, PROOF_LIFE, Session, SessionKind, Sessions, SessionsError};
pub use setup_code::SetupCode;
pub use sign_in::{SignInError, authenticate};
pub use signed_in::{Admin, SignedIn, require_session};
pub(crate) use signed_in::{COOKIE_NAME, PROOF_HEADER, accepts_html};
