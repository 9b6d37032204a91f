//! What ComfyUI takes of the machine: processor, memory, graphics card. One task samples, and only
//! while somebody looks.

mod gpu;
mod processes;

use crate::app::App;
use crate::engine::Engines;
use gpu::Gpu;
use parking_lot::Mutex;
use processes::Meter;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

/// Between two samples.
pub(crate) const INTERVAL: Duration = Duration::from_secs(2);
/// Samples kept: five minutes.
const SAMPLES: usize = 150;
/// How long sampling goes on after somebody asked.
const INTEREST: Duration = Duration::from_secs(60);
/// The use of a processor is told from two looks this far apart.
const FIRST_LOOK: Duration = Duration::from_millis(250);

/// What ComfyUI took at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) at: OffsetDateTime,
    /// Of the whole machine, 0 to 100.
    pub(crate) cpu_percent: f32,
    pub(crate) memory: u64,
    pub(crate) gpu_percent: Option<f32>,
    pub(crate) gpu_memory: Option<u64>,
    pub(crate) gpu_memory_total: Option<u64>,
}

/// The last samples.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    /// Oldest first.
    pub(crate) samples: VecDeque<Sample>,
    /// Of the machine.
    pub(crate) memory_total: u64,
    /// Name of the graphics card.
    pub(crate) gpu: Option<String>,
}

/// The last samples, and whether anybody looks at them.
#[derive(Debug)]
pub(crate) struct Statistics {
    seen: Mutex<Seen>,
    asked: watch::Sender<Option<Instant>>,
}

impl Default for Statistics {
    fn default() -> Self {
        Self {
            seen: Mutex::default(),
            asked: watch::Sender::new(None),
        }
    }
}

impl Statistics {
    /// What has been seen so far; asking keeps the sampling going.
    pub(crate) fn ask(&self) -> Seen {
        self.asked.send_replace(Some(Instant::now()));
        self.seen.lock().clone()
    }

    fn is_wanted(&self) -> bool {
        is_recent(*self.asked.borrow())
    }

    async fn until_wanted(&self) {
        let mut asked = self.asked.subscribe();
        // The sender lives as long as this value, so this never fails.
        let _ = asked.wait_for(|at| is_recent(*at)).await;
    }

    fn push(&self, sample: Sample, memory_total: u64, gpu: Option<String>) {
        let mut seen = self.seen.lock();
        if seen.samples.len() == SAMPLES {
            seen.samples.pop_front();
        }
        seen.samples.push_back(sample);
        seen.memory_total = memory_total;
        seen.gpu = gpu;
    }
}

fn is_recent(asked: Option<Instant>) -> bool {
    asked.is_some_and(|at| at.elapsed() < INTEREST)
}

/// Samples while somebody looks, until `stopping`.
pub(crate) async fn run(app: Arc<App>, stopping: CancellationToken) {
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = app.statistics.until_wanted() => {}
        }
        tokio::select! {
            () = stopping.cancelled() => return,
            () = sample_while_wanted(&app) => {}
        }
        // Samples of another time would look like these.
        *app.statistics.seen.lock() = Seen::default();
    }
}

async fn sample_while_wanted(app: &App) {
    let mut sampler = Sampler {
        meter: Some(Meter::new()),
        has_nvidia_smi: true,
    };
    let _ = sampler.load(&app.engines).await;
    sleep(FIRST_LOOK).await;
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while app.statistics.is_wanted() {
        ticks.tick().await;
        let (load, gpu) = sampler.sample(&app.engines).await;
        let sample = Sample {
            at: OffsetDateTime::now_utc(),
            cpu_percent: load.cpu_percent,
            memory: load.memory,
            gpu_percent: gpu.as_ref().and_then(|gpu| gpu.percent),
            gpu_memory: gpu.as_ref().and_then(|gpu| gpu.memory),
            gpu_memory_total: gpu.as_ref().and_then(|gpu| gpu.memory_total),
        };
        let name = gpu.map(|gpu| gpu.name);
        app.statistics.push(sample, load.memory_total, name);
    }
}

struct Sampler {
    /// `None` while a thread has it.
    meter: Option<Meter>,
    has_nvidia_smi: bool,
}

impl Sampler {
    async fn sample(&mut self, engines: &Engines) -> (processes::Load, Option<Gpu>) {
        let load = self.load(engines).await;
        (load, self.gpu(engines).await)
    }

    async fn load(&mut self, engines: &Engines) -> processes::Load {
        let pids = engines.processes();
        let mut meter = self.meter.take().unwrap_or_else(Meter::new);
        let measured = tokio::task::spawn_blocking(move || {
            let load = meter.measure(&pids);
            (meter, load)
        });
        match measured.await {
            Ok((meter, load)) => {
                self.meter = Some(meter);
                load.unwrap_or_default()
            }
            Err(error) => {
                tracing::debug!(%error, "the processes could not be looked at");
                processes::Load::default()
            }
        }
    }

    async fn gpu(&mut self, engines: &Engines) -> Option<Gpu> {
        if self.has_nvidia_smi {
            match gpu::by_nvidia_smi().await {
                Ok(gpu) => return Some(gpu),
                Err(error) => {
                    tracing::debug!(error = %crate::http::chain(&error), "ComfyUI is asked for the graphics card");
                    self.has_nvidia_smi = false;
                }
            }
        }
        gpu::by_comfyui(&engines.system_stats().await?)
    }
}
