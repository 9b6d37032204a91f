//! The one place where errors become HTTP answers: the client gets a code and a safe sentence, the
//! log gets the chain.

use super::comfyui_form::Refused;
use crate::access::{ListError, Lockout};
use crate::accounts::{AccountsError, HashError, PasswordFault, UserNameFault};
use crate::auth::SessionsError;
use crate::config::ConfigFileError;
use crate::engine::FilesError;
use crate::gallery::{GalleryError, PathFault};
use crate::setup::{FinishError, SetupError};
use crate::store::StoreError;
use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value, json};
use std::error::Error;

const SIGN_IN_REQUIRED: &str = "sign_in_required";

/// A refusal: status, machine-readable code, sentence for people, further members.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    members: Box<Map<String, Value>>,
    retry_after: Option<u64>,
}

impl ApiError {
    /// An answer of this status, code and sentence.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            members: Box::default(),
            retry_after: None,
        }
    }

    /// Adds a member to the body.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// Adds `Retry-After`, seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// A member of the body is missing.
    pub fn missing_field(name: &str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "missing_field",
            format!("The field \"{name}\" is missing."),
        )
        .with("field", name)
    }

    /// No valid session. Programs show this sentence, so it says what they can send.
    pub fn sign_in_required() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            SIGN_IN_REQUIRED,
            "Please sign in. A program sends an API token, as Authorization: Bearer, as X-API-Key, or as the \
             password of HTTP Basic.",
        )
    }

    /// The machine's owner asked for what only an account has.
    pub fn no_account() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "no_account",
            "This is for accounts; the machine's owner has none.",
        )
    }

    /// A non-admin asked for an admin's route.
    pub fn admin_required() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "admin_required",
            "Only an admin may do this.",
        )
    }

    /// Somebody else than the machine's owner asked for what is his alone.
    pub fn machine_owner_required() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "machine_owner_required",
            "This can only be done at the machine itself, in Sentinel's window.",
        )
    }

    /// Wrong name or password.
    pub fn wrong_credentials() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "wrong_credentials",
            "The user name or the password is wrong.",
        )
    }

    /// Locked out after failures; field names are the original's.
    pub fn locked_out(lockout: Lockout) -> Self {
        let seconds = lockout.remaining.as_secs_f64().ceil();
        let seconds = format!("{seconds:.0}").parse::<u64>().unwrap_or(1).max(1);
        Self::new(
            StatusCode::FORBIDDEN,
            "locked_out",
            format!("Too many failed attempts. Please try again in {seconds} seconds."),
        )
        .with("failed_attempts", lockout.failed_attempts)
        .with("remaining_seconds", seconds)
        .retry_after(seconds)
    }

    /// There is no such thing.
    pub fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "There is no such thing here.",
        )
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The sentence for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    fn internal(error: &(dyn Error + 'static)) -> Self {
        tracing::error!(error = %chain(error), "a request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Something went wrong in Sentinel; its log tells more.",
        )
    }
}

/// An error with its causes, in one line.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut body = json!({ "error": self.message, "code": self.code });
        if let Some(body) = body.as_object_mut() {
            body.extend((*self.members).clone());
        }
        let mut response = (self.status, Json(body)).into_response();
        if self.code == SIGN_IN_REQUIRED {
            // Browsers show no dialog for this scheme; they would for Basic.
            response
                .headers_mut()
                .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(Refused {
            code: self.code,
            message: self.message,
            members: *self.members,
        });
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<UserNameFault> for ApiError {
    fn from(fault: UserNameFault) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "invalid_username",
            fault.to_string(),
        )
    }
}

impl From<PasswordFault> for ApiError {
    fn from(fault: PasswordFault) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "invalid_password",
            fault.to_string(),
        )
    }
}

impl From<HashError> for ApiError {
    fn from(error: HashError) -> Self {
        match error {
            HashError::Busy => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                "Too many sign-ins at once. Please try again.",
            )
            .retry_after(1),
            HashError::Failed => Self::internal(&error),
        }
    }
}

impl From<SessionsError> for ApiError {
    fn from(error: SessionsError) -> Self {
        match error {
            SessionsError::TooManyTokens => Self::new(
                StatusCode::CONFLICT,
                "too_many_tokens",
                "There are too many API tokens of this account. Revoke one that is no longer needed.",
            ),
            SessionsError::Sign(_) | SessionsError::Store(_) => Self::internal(&error),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::internal(&error)
    }
}

impl From<AccountsError> for ApiError {
    fn from(error: AccountsError) -> Self {
        match error {
            AccountsError::NameTaken => Self::new(
                StatusCode::BAD_REQUEST,
                "username_taken",
                "This user name is taken.",
            ),
            AccountsError::Unknown => Self::not_found(),
            AccountsError::LastAdmin => Self::new(
                StatusCode::CONFLICT,
                "last_admin",
                "This is the last admin. Make somebody else an admin first.",
            ),
            AccountsError::NotFirst => Self::admin_required(),
            AccountsError::Changed => Self::wrong_credentials(),
            AccountsError::Io { .. } | AccountsError::Damaged { .. } => {
                tracing::error!(error = %chain(&error), "the account file cannot be used");
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "accounts_unavailable",
                    "The account file cannot be read or written. An admin finds the reason in Sentinel's log.",
                )
            }
        }
    }
}

impl From<ListError> for ApiError {
    fn from(error: ListError) -> Self {
        match &error {
            ListError::Line(fault) => {
                Self::new(StatusCode::BAD_REQUEST, "invalid_list", error.to_string())
                    .with("line", fault.line)
            }
            ListError::Io { .. } | ListError::Vanished { .. } => Self::internal(&error),
        }
    }
}

impl From<FilesError> for ApiError {
    fn from(error: FilesError) -> Self {
        tracing::error!(error = %chain(&error), "files of a deleted account were not dealt with");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "files_left",
            "The account is gone, but its files could not be dealt with; they are still on disk.",
        )
    }
}

impl From<ConfigFileError> for ApiError {
    fn from(error: ConfigFileError) -> Self {
        match &error {
            ConfigFileError::Invalid(errors) => {
                let faults: Vec<_> = errors
                    .0
                    .iter()
                    .map(|fault| json!({ "key": fault.key, "message": fault.message }))
                    .collect();
                Self::new(
                    StatusCode::BAD_REQUEST,
                    "invalid_config",
                    "Some settings are not valid.",
                )
                .with("errors", faults)
            }
            ConfigFileError::Io { .. } => Self::internal(&error),
        }
    }
}

impl From<PathFault> for ApiError {
    fn from(fault: PathFault) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_path", fault.to_string())
    }
}

impl From<GalleryError> for ApiError {
    fn from(error: GalleryError) -> Self {
        match error {
            GalleryError::NotFound => Self::new(
                StatusCode::NOT_FOUND,
                "not_found",
                "There is no such file among yours.",
            ),
            GalleryError::NoThumbnail => Self::new(
                StatusCode::NOT_FOUND,
                "no_thumbnail",
                "There is no small picture of this file.",
            ),
            GalleryError::Busy => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                "Too many requests at once. Please try again.",
            )
            .retry_after(1),
            GalleryError::Io(_) | GalleryError::BrokeOff(_) => Self::internal(&error),
        }
    }
}

impl From<SetupError> for ApiError {
    fn from(error: SetupError) -> Self {
        match error {
            SetupError::Busy { job } => Self::new(
                StatusCode::CONFLICT,
                "job_running",
                "Another check or installation is running.",
            )
            .with("job", job),
        }
    }
}

impl From<FinishError> for ApiError {
    fn from(error: FinishError) -> Self {
        match error {
            FinishError::NoAdmin => Self::new(
                StatusCode::BAD_REQUEST,
                "admin_missing",
                "There is no account yet. Please choose a name and a password for the first admin.",
            ),
            FinishError::HasAdmin => Self::new(
                StatusCode::CONFLICT,
                "has_admin",
                "There is an account already. The set-up does not make another one.",
            ),
            FinishError::Name(fault) => fault.into(),
            FinishError::Password(fault) => fault.into(),
            FinishError::Hash(error) => error.into(),
            FinishError::Config(error) => error.into(),
            FinishError::Accounts(error) => error.into(),
            FinishError::Sessions(error) => error.into(),
        }
    }
}
