//! What the GPU was used for: by user and day, as a table, and for Prometheus.

use super::Answer;
use super::export::cell;
use crate::app::App;
use crate::auth::{Admin, SignedIn};
use crate::clock::{self, Minutes};
use crate::http::ApiError;
use crate::jobs::{Conditions as _, RoleLimits};
use crate::store::UsageRow;
use crate::supervisor::EngineState;
use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// Days of an answer at most.
const MAX_DAYS: u32 = 3660;

#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct UsageQuery {
    /// Today and the days before, 30 if not said.
    days: Option<u32>,
}

impl UsageQuery {
    fn first_day(&self) -> String {
        let days = self.days.unwrap_or(30).clamp(1, MAX_DAYS);
        clock::local_day_before(days - 1)
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OwnDay {
    /// `YYYY-MM-DD` by this machine's clock.
    day: String,
    gpu_seconds: f64,
    jobs: i64,
    failed: i64,
    waiting_seconds: f64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LimitsView {
    jobs_waiting: Option<usize>,
    gpu_minutes_a_day: Option<u32>,
    longest_job_minutes: Option<u32>,
}

impl LimitsView {
    fn of(limits: &RoleLimits) -> Self {
        Self {
            jobs_waiting: limits.jobs_waiting,
            gpu_minutes_a_day: limits.gpu_a_day.map(Minutes::count),
            longest_job_minutes: limits.longest_job.map(Minutes::count),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OwnUsage {
    days: Vec<OwnDay>,
    limits: LimitsView,
    used_today_seconds: f64,
}

/// What one has used oneself, and what one may use.
#[utoipa::path(get, path = "/usage/mine", tag = "queue", params(UsageQuery), responses((status = 200, body = OwnUsage)))]
pub(crate) async fn mine(
    State(app): State<Arc<App>>,
    signed_in: SignedIn,
    Query(query): Query<UsageQuery>,
) -> Answer<OwnUsage> {
    let user = &signed_in.account.id;
    let rows = app
        .store
        .usage(query.first_day(), Some(user.clone()))
        .await?;
    let days = rows
        .into_iter()
        .map(|row| OwnDay {
            gpu_seconds: seconds(row.gpu_ms),
            waiting_seconds: seconds(row.waiting_ms),
            day: row.day,
            jobs: row.jobs,
            failed: row.failed,
        })
        .collect();
    Ok(Json(OwnUsage {
        days,
        limits: LimitsView::of(&app.limits_of(user)),
        used_today_seconds: seconds(app.jobs.used_today(user).cast_signed()),
    }))
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DayView {
    day: String,
    user_id: String,
    /// Empty when the account is gone.
    username: String,
    gpu_seconds: f64,
    jobs: i64,
    failed: i64,
    waiting_seconds: f64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StorageView {
    user_id: String,
    username: String,
    bytes: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UsageView {
    days: Vec<DayView>,
    storage: Vec<StorageView>,
}

/// What everybody has used.
#[utoipa::path(get, path = "/usage", tag = "queue", params(UsageQuery), responses((status = 200, body = UsageView), (status = 403)))]
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    _admin: Admin,
    Query(query): Query<UsageQuery>,
) -> Answer<UsageView> {
    let days = days(&app, &query).await?;
    let bytes = app.gallery.storage().await;
    let accounts = app.accounts.current();
    let storage = accounts
        .iter()
        .filter_map(|account| {
            Some(StorageView {
                user_id: account.id.to_string(),
                username: account.username.clone(),
                bytes: *bytes.get(&account.id)?,
            })
        })
        .collect();
    Ok(Json(UsageView { days, storage }))
}

async fn days(app: &App, query: &UsageQuery) -> Result<Vec<DayView>, ApiError> {
    let rows = app.store.usage(query.first_day(), None).await?;
    let accounts = app.accounts.current();
    let name = |id: &str| {
        accounts
            .iter()
            .find(|account| account.id.as_str() == id)
            .map_or_else(String::new, |account| account.username.clone())
    };
    Ok(rows
        .into_iter()
        .map(|row: UsageRow| DayView {
            username: name(&row.user),
            gpu_seconds: seconds(row.gpu_ms),
            waiting_seconds: seconds(row.waiting_ms),
            day: row.day,
            user_id: row.user,
            jobs: row.jobs,
            failed: row.failed,
        })
        .collect())
}

/// The same as a table for a spreadsheet.
#[utoipa::path(get, path = "/usage.csv", tag = "queue", params(UsageQuery), responses((status = 200), (status = 403)))]
pub(crate) async fn table(
    State(app): State<Arc<App>>,
    _admin: Admin,
    Query(query): Query<UsageQuery>,
) -> Result<Response, ApiError> {
    let mut text =
        String::from("\u{feff}day,user_id,username,gpu_seconds,jobs,failed,waiting_seconds\r\n");
    for day in days(&app, &query).await? {
        let cells = [
            cell(&day.day),
            cell(&day.user_id),
            cell(&day.username),
            format!("{:.3}", day.gpu_seconds),
            day.jobs.to_string(),
            day.failed.to_string(),
            format!("{:.3}", day.waiting_seconds),
        ];
        text.push_str(&cells.join(","));
        text.push_str("\r\n");
    }
    let headers = [
        (CONTENT_TYPE, "text/csv; charset=utf-8"),
        (
            CONTENT_DISPOSITION,
            "attachment; filename=\"sentinel-usage.csv\"",
        ),
    ];
    Ok((headers, text).into_response())
}

/// `GET /sentinel/metrics`, in the text form of Prometheus.
pub(crate) async fn metrics(
    State(app): State<Arc<App>>,
    _admin: Admin,
) -> Result<Response, ApiError> {
    let mut text = String::new();
    let mut gauge = |name: &str, help: &str, value: u64| {
        let _ = write!(
            text,
            "# HELP sentinel_{name} {help}\n# TYPE sentinel_{name} gauge\nsentinel_{name} {value}\n"
        );
    };
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let running = app.jobs.running();
    gauge(
        "jobs_waiting",
        "Jobs that wait in the gateway.",
        count(app.jobs.waiting()),
    );
    gauge("jobs_running", "Jobs in engines.", count(running.len()));
    gauge(
        "jobs_held",
        "1 while jobs are held back.",
        u64::from(app.jobs.hold().is_some()),
    );
    gauge(
        "events_let_go",
        "Events of jobs that went on before what they tell was written down.",
        app.jobs.gate.let_go(),
    );
    gauge(
        "connections",
        "Open connections and WebSockets.",
        count(app.connections.len()),
    );
    let ready = app
        .engines
        .states()
        .into_iter()
        .filter(|state| *state == EngineState::Ready)
        .count();
    gauge("engines_ready", "ComfyUIs that answer.", count(ready));
    let today = clock::local_day();
    let rows = app.store.usage(today, None).await?;
    let accounts = app.accounts.current();
    type Column = fn(&UsageRow) -> f64;
    let columns: [(&str, &str, Column); 4] = [
        ("gpu_seconds_today", "GPU time today.", |row| {
            seconds(row.gpu_ms)
        }),
        ("jobs_today", "Jobs finished today.", |row| whole(row.jobs)),
        ("jobs_failed_today", "Jobs failed today.", |row| {
            whole(row.failed)
        }),
        (
            "waiting_seconds_today",
            "Time that jobs of today waited.",
            |row| seconds(row.waiting_ms),
        ),
    ];
    for (name, help, column) in columns {
        let _ = write!(
            text,
            "# HELP sentinel_{name} {help}\n# TYPE sentinel_{name} gauge\n"
        );
        for row in &rows {
            // Names of accounts are letters, digits and underscores: nothing to escape.
            let username = accounts
                .iter()
                .find(|account| account.id.as_str() == row.user)
                .map_or("", |account| account.username.as_str());
            let _ = writeln!(
                text,
                "sentinel_{name}{{user=\"{username}\",user_id=\"{}\"}} {}",
                row.user,
                column(row)
            );
        }
    }
    let headers = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((headers, text).into_response())
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn seconds(milliseconds: i64) -> f64 {
    milliseconds as f64 / 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn whole(count: i64) -> f64 {
    count as f64
}
