//! What ComfyUI takes of the machine, for admins.

use crate::app::App;
use crate::auth::Admin;
use crate::statistics::{INTERVAL, Sample};
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use std::sync::Arc;
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SampleView {
    at: String,
    /// Of the whole machine, 0 to 100.
    cpu_percent: f32,
    memory_bytes: u64,
    gpu_percent: Option<f32>,
    gpu_memory_bytes: Option<u64>,
    gpu_memory_total_bytes: Option<u64>,
}

impl SampleView {
    fn of(sample: &Sample) -> Self {
        let at = sample.at.replace_nanosecond(0).unwrap_or(sample.at);
        Self {
            at: at.format(&Rfc3339).unwrap_or_default(),
            cpu_percent: sample.cpu_percent,
            memory_bytes: sample.memory,
            gpu_percent: sample.gpu_percent,
            gpu_memory_bytes: sample.gpu_memory,
            gpu_memory_total_bytes: sample.gpu_memory_total,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GpuView {
    name: String,
}

/// The last five minutes of all engines together.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StatisticsView {
    interval_seconds: u64,
    /// Oldest first.
    samples: Vec<SampleView>,
    /// Of the machine; 0 until the first sample.
    memory_total_bytes: u64,
    gpu: Option<GpuView>,
}

/// Processor, memory and graphics card that ComfyUI takes. Sampling begins with the first request
/// and ends a minute after the last.
#[utoipa::path(get, path = "/engine/statistics", tag = "engine",
    responses((status = 200, body = StatisticsView), (status = 403)))]
pub(crate) async fn show(State(app): State<Arc<App>>, _admin: Admin) -> Json<StatisticsView> {
    let seen = app.statistics.ask();
    Json(StatisticsView {
        interval_seconds: INTERVAL.as_secs(),
        samples: seen.samples.iter().map(SampleView::of).collect(),
        memory_total_bytes: seen.memory_total,
        gpu: seen.gpu.map(|name| GpuView { name }),
    })
}
