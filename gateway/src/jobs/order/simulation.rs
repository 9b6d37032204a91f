//! Fifty users over a day: the fair order against first come, first served.

use super::*;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write as _;

const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;
const DAY: u64 = 24 * HOUR;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A job or two now and then.
    Light,
    /// Many jobs at once, a few times a day.
    Bursty,
    /// Keeps hundreds of jobs waiting.
    Heavy,
}

const KINDS: [(Kind, &str, usize); 3] = [
    (Kind::Light, "Light: 34 users, 1–2 jobs now and then", 34),
    (Kind::Bursty, "Bursty: 12 users, 8–24 jobs at once", 12),
    (Kind::Heavy, "Heavy: 4 users, 100–200 jobs at once", 4),
];

#[derive(Clone, Debug)]
struct Job {
    owner: usize,
    kind: Kind,
    arrives: u64,
    takes: u64,
    model: u64,
}

/// The same day for both orders, in order of arrival.
fn day(seed: u64) -> Vec<Job> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut jobs = Vec::new();
    let mut owner = 0;
    for (kind, _, users) in KINDS {
        for _ in 0..users {
            let (visits, most, least) = match kind {
                Kind::Light => (9, 2, 1),
                Kind::Bursty => (3, 24, 8),
                Kind::Heavy => (3, 200, 100),
            };
            let model = random.random_range(1..6);
            for _ in 0..visits {
                // More by day than at night: the middle of two moments.
                let arrives = (random.random_range(0..DAY) + random.random_range(0..DAY)) / 2;
                for _ in 0..random.random_range(least..=most) {
                    let takes = random.random_range(8 * SECOND..40 * SECOND);
                    jobs.push(Job {
                        owner,
                        kind,
                        arrives,
                        takes,
                        model,
                    });
                }
            }
            owner += 1;
        }
    }
    jobs.sort_by_key(|job| job.arrives);
    jobs
}

/// What came of the day.
struct Outcome {
    /// Waiting time of each job, in its kind, milliseconds.
    waits: Vec<(Kind, u64)>,
    worked: u64,
    ended: u64,
}

impl Outcome {
    fn of(&self, kind: Kind) -> Vec<u64> {
        let mut waits: Vec<u64> = self
            .waits
            .iter()
            .filter(|(of, _)| *of == kind)
            .map(|(_, wait)| *wait)
            .collect();
        waits.sort_unstable();
        waits
    }
}

fn percentile(sorted: &[u64], hundredth: usize) -> u64 {
    sorted[(sorted.len() - 1) * hundredth / 100]
}

/// Lets `next` choose among those that have arrived, one at a time.
fn play(
    jobs: &[Job],
    mut next: impl FnMut(&[usize], Option<(usize, u64)>) -> Option<usize>,
) -> Outcome {
    let mut outcome = Outcome {
        waits: Vec::new(),
        worked: 0,
        ended: 0,
    };
    let mut now = 0;
    let mut arrived = 0;
    let mut before = None;
    while outcome.waits.len() < jobs.len() {
        let first_new = arrived;
        while arrived < jobs.len() && jobs[arrived].arrives <= now {
            arrived += 1;
        }
        let new: Vec<usize> = (first_new..arrived).collect();
        match next(&new, before.take()) {
            Some(index) => {
                let job = &jobs[index];
                outcome.waits.push((job.kind, now - job.arrives));
                outcome.worked += job.takes;
                now += job.takes;
                before = Some((index, job.takes));
            }
            None => now = jobs[arrived].arrives,
        }
    }
    outcome.ended = now;
    outcome
}

fn first_come(jobs: &[Job]) -> Outcome {
    let mut line = BinaryHeap::new();
    play(jobs, |new, _| {
        line.extend(new.iter().map(|index| Reverse(*index)));
        line.pop().map(|Reverse(index)| index)
    })
}

fn fair(jobs: &[Job]) -> Outcome {
    let users: Vec<UserId> = (0..50)
        .map(|owner| UserId::parse(&format!("user-{owner}")).unwrap())
        .collect();
    let rules = Rules {
        batch_ms: 5 * SECOND,
    };
    // What the gateway would expect before it has measured: the same of everybody.
    let expected = 24 * SECOND;
    let mut order = Fair::new();
    let mut loaded = None;
    play(jobs, |new, before| {
        if let Some((index, took)) = before {
            order.ended(&users[jobs[index].owner], expected, took);
        }
        for index in new {
            order.add(Entry {
                id: JobId(uuid::Uuid::from_u128(*index as u128)),
                user: users[jobs[*index].owner].clone(),
                number: *index as f64,
                seq: *index as u64,
                model: Some(jobs[*index].model),
                urgency: Urgency::Normal,
            });
        }
        let chosen = order.pick(&rules, loaded, &|_| expected, &|_| true)?;
        let entry = order.start(chosen, expected)?;
        loaded = entry.model;
        Some(entry.seq as usize)
    })
}

#[test]
fn light_users_wait_much_less_and_nobody_works_more() {
    for seed in 1..=5 {
        let jobs = day(seed);
        let (before, after) = (first_come(&jobs), fair(&jobs));
        assert_eq!(before.worked, after.worked);
        assert_eq!(
            before.ended, after.ended,
            "the GPU is never idle while a job waits"
        );
        assert_eq!(before.waits.len(), after.waits.len());
        let light = |outcome: &Outcome| percentile(&outcome.of(Kind::Light), 95);
        assert!(
            light(&after) * 10 < light(&before),
            "seed {seed}: {} s against {} s",
            light(&after) / SECOND,
            light(&before) / SECOND
        );
        // At most one job of each of the others, and the batch.
        let most = after.of(Kind::Light).last().copied().unwrap();
        assert!(most < 50 * 40 * SECOND, "seed {seed}: {} s", most / SECOND);
        let bursty = |outcome: &Outcome| percentile(&outcome.of(Kind::Bursty), 50);
        assert!(bursty(&after) < bursty(&before), "seed {seed}");
    }
    if let Some(path) = std::env::var_os("SENTINEL_PLOT") {
        let jobs = day(1);
        let plot = plot(&first_come(&jobs), &fair(&jobs));
        std::fs::write(path, plot).unwrap();
    }
}

const WIDTH: f64 = 960.0;
const LEFT: f64 = 36.0;
const RIGHT: f64 = 560.0;
const PANEL: f64 = 140.0;
const TOP: f64 = 92.0;
const BINS: usize = 44;
/// Ends of the time axis, seconds: it is logarithmic.
const AXIS: (f64, f64) = (1.0, 43_200.0);
const COLOURS: [(&str, &str); 2] = [
    ("#9a8f86", "first come, first served"),
    ("#0f8b8d", "fair queue"),
];

/// Where a waiting time stands on the axis, 0 to 1.
fn on_axis(milliseconds: u64) -> f64 {
    let seconds = (milliseconds as f64 / 1000.0).clamp(AXIS.0, AXIS.1);
    (seconds / AXIS.0).ln() / (AXIS.1 / AXIS.0).ln()
}

fn in_words(milliseconds: u64) -> String {
    let seconds = milliseconds / SECOND;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", (seconds + 30) / 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// How many of the jobs waited how long, each kind of user in a panel of its own.
fn plot(first_come: &Outcome, fair: &Outcome) -> String {
    let height = TOP + PANEL * KINDS.len() as f64 + 34.0;
    let bottom = height - 48.0;
    let span = RIGHT - LEFT;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"system-ui, 'Segoe UI', Helvetica, Arial, sans-serif\" font-size=\"13\" fill=\"#2b2f36\" role=\"img\" aria-label=\"Waiting times of a day, first come first served against the fair queue\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" rx=\"12\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"34\" font-size=\"18\" font-weight=\"600\">How long jobs wait for the GPU</text>\n\
         <text x=\"{LEFT}\" y=\"55\" fill=\"#666d78\">Simulation: 50 users, one GPU, one day, the same {} jobs in both orders.</text>\n",
        fair.waits.len()
    );
    for (seconds, name) in [
        (1, "1 s"),
        (10, "10 s"),
        (60, "1 min"),
        (600, "10 min"),
        (3600, "1 h"),
        (36_000, "10 h"),
    ] {
        let x = LEFT + span * on_axis(seconds * SECOND);
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{}\" y2=\"{bottom:.1}\" stroke=\"#e6e8ec\"/>\n\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"12\" fill=\"#666d78\">{name}</text>",
            TOP - 14.0,
            bottom + 18.0,
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"12\" fill=\"#666d78\">waiting time (logarithmic)</text>",
        f64::midpoint(LEFT, RIGHT),
        bottom + 36.0,
    );
    for (place, (kind, name, _)) in KINDS.into_iter().enumerate() {
        let base = TOP + PANEL * (place + 1) as f64 - 14.0;
        let outcomes = [first_come.of(kind), fair.of(kind)];
        let bins = outcomes.each_ref().map(|waits| {
            let mut bins = [0.0; BINS];
            for wait in waits {
                let bin = (on_axis(*wait) * BINS as f64) as usize;
                bins[bin.min(BINS - 1)] += 1.0;
            }
            bins
        });
        let highest = bins
            .iter()
            .flatten()
            .fold(1.0, |one: f64, other| one.max(*other));
        for (bins, (colour, _)) in bins.iter().zip(COLOURS) {
            let mut path = format!("M{LEFT:.1} {base:.1}");
            for (bin, count) in bins.iter().enumerate() {
                let y = base - (PANEL - 46.0) * count / highest;
                let x = |bin: usize| LEFT + span * bin as f64 / BINS as f64;
                let _ = write!(path, "L{:.1} {y:.1}L{:.1} {y:.1}", x(bin), x(bin + 1));
            }
            let _ = writeln!(
                svg,
                "<path d=\"{path}L{RIGHT:.1} {base:.1}Z\" fill=\"{colour}\" fill-opacity=\".35\" stroke=\"{colour}\" stroke-width=\"1.5\" stroke-linejoin=\"round\"/>"
            );
        }
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{base:.1}\" y2=\"{base:.1}\" stroke=\"#b9bec7\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" font-weight=\"600\">{}</text>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" fill=\"#666d78\">{}</text>",
            RIGHT + 24.0,
            base - 84.0,
            name.split_once(": ").unwrap().0,
            RIGHT + 24.0,
            base - 66.0,
            name.split_once(": ").unwrap().1,
        );
        for (line, (waits, (colour, _))) in outcomes.iter().zip(COLOURS).enumerate() {
            let y = base - 40.0 + 20.0 * line as f64;
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"5\" fill=\"{colour}\"/>\n\
                 <text x=\"{:.1}\" y=\"{y:.1}\">half within {}, 95 % within {}</text>",
                RIGHT + 29.0,
                y - 4.5,
                RIGHT + 42.0,
                in_words(percentile(waits, 50)),
                in_words(percentile(waits, 95)),
            );
        }
    }
    for (place, (colour, name)) in COLOURS.into_iter().enumerate() {
        let x = RIGHT + 29.0;
        let y = 32.0 + 20.0 * place as f64;
        let _ = writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{:.1}\">{name}</text>",
            x + 13.0,
            y + 4.5,
        );
    }
    svg.push_str("</svg>\n");
    svg
}
