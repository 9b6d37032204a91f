use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap as Map;

fn user(number: usize) -> UserId {
    UserId::parse(&format!("user-{number}")).unwrap()
}

fn id(seq: u64) -> JobId {
    JobId(uuid::Uuid::from_u128(u128::from(seq)))
}

fn entry(owner: usize, seq: u64) -> Entry {
    Entry {
        id: id(seq),
        user: user(owner),
        number: 0.0,
        seq,
        model: None,
        urgency: Urgency::Normal,
    }
}

/// Picks and runs one job on one slot; all jobs take a second.
fn next(fair: &mut Fair) -> Option<u64> {
    let chosen = fair.pick(&Rules::default(), None, &|_| 1000, &|_| true)?;
    let entry = fair.start(chosen, 1000)?;
    fair.ended(&entry.user, 1000, 1000);
    Some(entry.seq)
}

fn all(fair: &mut Fair) -> Vec<u64> {
    std::iter::from_fn(|| next(fair)).collect()
}

#[test]
fn users_take_turns_and_keep_their_own_order() {
    let mut fair = Fair::new();
    for seq in 1..=4 {
        fair.add(entry(0, seq));
    }
    fair.add(Entry {
        number: -1.0,
        ..entry(0, 5)
    });
    fair.add(entry(1, 6));
    fair.add(entry(2, 7));
    let own: Vec<u64> = fair.own(&user(0)).map(|entry| entry.seq).collect();
    assert_eq!(own, [5, 1, 2, 3, 4]);
    assert_eq!(fair.len(), 7);
    assert_eq!(fair.waiting_of(&user(0)), 5);
    assert_eq!(all(&mut fair), [5, 6, 7, 1, 2, 3, 4]);
    assert!(fair.is_empty());
}

#[test]
fn an_admin_moves_a_job_before_or_after_all_others() {
    let mut fair = Fair::new();
    for seq in 1..=3 {
        fair.add(entry(0, seq));
    }
    for seq in 4..=6 {
        fair.add(entry(1, seq));
    }
    assert!(fair.set_urgency(id(6), Urgency::First));
    assert!(fair.set_urgency(id(3), Urgency::First));
    assert!(fair.set_urgency(id(1), Urgency::Last));
    assert!(!fair.set_urgency(id(9), Urgency::First));
    assert_eq!(fair.get(id(6)).unwrap().urgency, Urgency::First);
    assert_eq!(all(&mut fair), [3, 6, 2, 4, 5, 1]);
}

#[test]
fn weights_divide_the_gpu() {
    let mut fair = Fair::new();
    fair.set_weight(&user(0), 3);
    for seq in 0..40 {
        fair.add(entry((seq % 2) as usize, seq));
    }
    let first: Vec<u64> = (0..16).filter_map(|_| next(&mut fair)).collect();
    let of_first = first.iter().filter(|seq| **seq % 2 == 0).count();
    assert_eq!(of_first, 12);
}

#[test]
fn who_was_idle_has_no_credit_and_who_had_more_keeps_it() {
    let mut fair = Fair::new();
    for seq in 1..=20 {
        fair.add(entry(0, seq));
    }
    for _ in 0..10 {
        next(&mut fair);
    }
    // The newcomer gets his turn, not the ten jobs that he did not send before.
    for seq in 21..=30 {
        fair.add(entry(1, seq));
    }
    let order: Vec<u64> = (0..6).filter_map(|_| next(&mut fair)).collect();
    assert_eq!(order, [21, 11, 22, 12, 23, 13]);
    // Whoever leaves and comes back at once is where he was.
    let removed: Vec<Entry> = (14..=20).filter_map(|seq| fair.remove(id(seq))).collect();
    for entry in removed {
        fair.add(entry);
    }
    assert_eq!(next(&mut fair), Some(24));
    assert_eq!(next(&mut fair), Some(14));
}

#[test]
fn nobody_owes_anything_once_the_gpu_was_idle() {
    let mut fair = Fair::new();
    fair.add(entry(0, 1));
    fair.start(id(1), 1000);
    fair.ended(&user(0), 1000, 600_000);
    fair.add(entry(0, 2));
    fair.add(entry(1, 3));
    fair.add(entry(1, 4));
    assert_eq!(all(&mut fair), [2, 3, 4]);
    assert!(fair.users.is_empty() && fair.places.is_empty());
}

#[test]
fn who_could_not_run_has_no_credit() {
    let mut fair = Fair::new();
    for seq in [1, 2, 10] {
        fair.add(entry(0, seq));
    }
    for seq in 3..=9 {
        fair.add(entry(1, seq));
    }
    let free = |entry: &Entry| entry.user != user(0);
    for _ in 0..4 {
        let chosen = fair
            .pick(&Rules::default(), None, &|_| 1000, &free)
            .unwrap();
        fair.start(chosen, 1000);
        fair.ended(&user(1), 1000, 1000);
    }
    assert_eq!(all(&mut fair), [1, 2, 7, 10, 8, 9]);
}

#[test]
fn what_is_put_back_keeps_its_place() {
    let mut fair = Fair::new();
    for seq in 1..=3 {
        fair.add(entry(0, seq));
        fair.add(entry(1, seq + 10));
    }
    let chosen = fair
        .pick(&Rules::default(), None, &|_| 1000, &|_| true)
        .unwrap();
    let taken = fair.start(chosen, 1000).unwrap();
    assert_eq!(taken.seq, 1);
    fair.ended(&taken.user, 1000, 0);
    fair.add(taken);
    assert_eq!(all(&mut fair), [1, 11, 2, 12, 3, 13]);
}

#[test]
fn a_loaded_model_goes_first_for_as_long_as_may_be() {
    let mut fair = Fair::new();
    fair.add(Entry {
        model: Some(1),
        ..entry(0, 1)
    });
    for seq in 2..=6 {
        fair.add(Entry {
            model: Some(2),
            ..entry(1, seq)
        });
    }
    let rules = Rules { batch_ms: 2500 };
    let mut order = Vec::new();
    let mut loaded = Some(2);
    while let Some(chosen) = fair.pick(&rules, loaded, &|_| 1000, &|_| true) {
        let entry = fair.start(chosen, 1000).unwrap();
        fair.ended(&entry.user, 1000, 1000);
        loaded = entry.model;
        order.push(entry.seq);
    }
    assert_eq!(order, [2, 3, 1, 4, 5, 6]);
}

#[test]
fn users_who_left_are_forgotten() {
    let mut fair = Fair::new();
    for seq in 0..2000 {
        fair.add(entry(seq as usize + 1, seq * 2));
        fair.add(entry(0, seq * 2 + 1));
        next(&mut fair);
        next(&mut fair);
        assert!(fair.users.len() <= 4, "{}", fair.users.len());
    }
    all(&mut fair);
    assert!(fair.users.is_empty());
}

#[test]
fn ten_thousand_jobs_are_picked_from_quickly() {
    let mut fair = Fair::new();
    for seq in 0..10_000 {
        fair.add(Entry {
            model: Some(seq % 3),
            ..entry((seq % 50) as usize, seq)
        });
    }
    let started = std::time::Instant::now();
    let rules = Rules { batch_ms: 5000 };
    for _ in 0..1000 {
        let chosen = fair.pick(&rules, Some(1), &|_| 1000, &|_| true).unwrap();
        let entry = fair.start(chosen, 1000).unwrap();
        fair.ended(&entry.user, 1000, 1000);
    }
    let each = started.elapsed() / 1000;
    assert!(each.as_micros() < 2000, "{each:?} for one pick");
    let started = std::time::Instant::now();
    let told = fair.forecast(&rules, &|_| 1000, &[], 1, 10_000);
    assert_eq!(told.len(), 9000);
    assert!(started.elapsed().as_secs() < 2, "{:?}", started.elapsed());
}

/// A job of the random tests.
#[derive(Clone, Debug)]
struct Random {
    owner: usize,
    number: i8,
    expected: u64,
    measured: u64,
    model: u64,
}

const LONGEST: u64 = 500;

fn random(owners: usize) -> impl Strategy<Value = Random> {
    (0..owners, any::<i8>(), 1..=LONGEST, 1..=LONGEST, 0..3u64).prop_map(
        |(owner, number, expected, measured, model)| Random {
            owner,
            number,
            expected,
            measured,
            model,
        },
    )
}

/// One slot, and jobs that are known by their arrival.
struct World {
    fair: Fair,
    rules: Rules,
    loaded: Option<u64>,
    jobs: Vec<Random>,
}

impl World {
    fn new(batch_ms: u64, jobs: &[Random]) -> Self {
        let mut world = Self {
            fair: Fair::new(),
            rules: Rules { batch_ms },
            loaded: None,
            jobs: Vec::new(),
        };
        for job in jobs {
            world.add(job.clone());
        }
        world
    }

    fn add(&mut self, job: Random) {
        let seq = self.jobs.len() as u64;
        self.fair.add(Entry {
            number: f64::from(job.number),
            model: (job.model > 0).then_some(job.model),
            ..entry(job.owner, seq)
        });
        self.jobs.push(job);
    }

    fn pick(&self, can_run: &dyn Fn(&Entry) -> bool) -> Option<JobId> {
        let expected = |entry: &Entry| self.jobs[entry.seq as usize].expected;
        self.fair.pick(&self.rules, self.loaded, &expected, can_run)
    }

    /// Runs a job from its start to its end.
    fn run(&mut self, chosen: JobId) -> Random {
        let job = self.jobs[self.fair.get(chosen).unwrap().seq as usize].clone();
        let entry = self.fair.start(chosen, job.expected).unwrap();
        self.fair.ended(&entry.user, job.expected, job.measured);
        self.loaded = entry.model.or(self.loaded);
        job
    }
}

proptest! {
    /// Somebody who comes fresh waits for at most one job of each other user, and for the batch.
    #[test]
    fn nobody_starves(
        jobs in prop::collection::vec(random(5), 1..150),
        later in prop::collection::vec(random(5), 0..50),
        before in 0..60usize,
        batch_ms in prop_oneof![Just(0), 1..800u64],
    ) {
        let mut world = World::new(batch_ms, &jobs);
        for _ in 0..before.min(jobs.len()) {
            let chosen = world.pick(&|_| true).unwrap();
            world.run(chosen);
        }
        let fresh = Random { owner: 99, number: 0, expected: 10, measured: 10, model: 7 };
        world.add(fresh);
        let mut foreign: Map<usize, Vec<Random>> = Map::new();
        let mut later = later.into_iter();
        loop {
            let chosen = world.pick(&|_| true).unwrap();
            let job = world.run(chosen);
            if job.owner == 99 {
                break;
            }
            foreign.entry(job.owner).or_default().push(job);
            if let Some(job) = later.next() {
                world.add(job);
            }
        }
        if batch_ms == 0 {
            prop_assert!(foreign.values().all(|jobs| jobs.len() == 1), "{foreign:?}");
        }
        // What is not among the longest of each went out of turn.
        let total: u64 = foreign.values().flatten().map(|job| job.expected).sum();
        let longest: u64 = foreign
            .values()
            .filter_map(|jobs| jobs.iter().map(|job| job.expected).max())
            .sum();
        prop_assert!(total <= longest + batch_ms, "{foreign:?}");
    }

    /// The same on several slots, where each user's engine has one job at a time.
    #[test]
    fn nobody_starves_on_several_slots(
        jobs in prop::collection::vec(random(5), 1..150),
        before in 0..60usize,
        slots in 2..4usize,
    ) {
        let mut world = World::new(0, &jobs);
        let mut running: Vec<(u64, usize)> = Vec::new();
        let mut now = 0;
        let mut foreign: Map<usize, usize> = Map::new();
        let fresh = jobs.len() as u64;
        for turn in 0.. {
            if turn == before {
                world.add(Random { owner: 99, number: 0, expected: 10, measured: 10, model: 7 });
            }
            let is_free = |entry: &Entry| {
                let owner = world.jobs[entry.seq as usize].owner;
                running.iter().all(|(_, seq)| world.jobs[*seq].owner != owner)
            };
            let chosen = if running.len() < slots { world.pick(&is_free) } else { None };
            if let Some(chosen) = chosen {
                let seq = world.fair.get(chosen).unwrap().seq;
                if seq == fresh {
                    break;
                }
                let job = &world.jobs[seq as usize];
                world.fair.start(chosen, job.expected);
                running.push((now + job.measured, seq as usize));
                if turn >= before {
                    *foreign.entry(job.owner).or_default() += 1;
                }
            } else if let Some(place) = (0..running.len()).min_by_key(|place| running[*place].0) {
                let (end, seq) = running.swap_remove(place);
                now = end;
                let job = &world.jobs[seq];
                world.fair.ended(&user(job.owner), job.expected, job.measured);
            } else {
                prop_assert!(turn < before, "the fresh one waits and the GPU is free");
            }
        }
        prop_assert!(foreign.values().all(|starts| *starts <= 1), "{foreign:?}");
    }

    /// While all have jobs waiting, what each has had by his weight differs by no more than a
    /// job of each.
    #[test]
    fn shares_converge_to_the_weights(
        jobs in prop::collection::vec(random(1), 400),
        weights in prop::collection::vec(1..5u32, 2..6),
        batch_ms in prop_oneof![Just(0), 1..800u64],
    ) {
        let mut world = World::new(batch_ms, &[]);
        for (place, job) in jobs.into_iter().enumerate() {
            // The batch is bounded by what is expected.
            let measured = if batch_ms > 0 { job.expected } else { job.measured };
            world.add(Random { owner: place % weights.len(), measured, ..job });
        }
        for (owner, weight) in weights.iter().enumerate() {
            world.fair.set_weight(&user(owner), *weight);
        }
        let mut had = vec![0; weights.len()];
        while (0..weights.len()).all(|owner| world.fair.waiting_of(&user(owner)) > 0) {
            let chosen = world.pick(&|_| true).unwrap();
            let job = world.run(chosen);
            had[job.owner] += job.measured;
            for (one, of_one) in weights.iter().zip(&had) {
                for (other, of_other) in weights.iter().zip(&had) {
                    let apart = *of_one as f64 / f64::from(*one) - *of_other as f64 / f64::from(*other);
                    let longest = LONGEST as f64;
                    let allowed = longest / f64::from(*one) + longest / f64::from(*other) + batch_ms as f64;
                    prop_assert!(apart <= allowed + 0.001, "{had:?} {weights:?}");
                }
            }
        }
    }

    /// Of each user only the first that waits is picked, never one that cannot run, and somebody's
    /// whenever one can.
    #[test]
    fn own_order_is_kept_and_what_cannot_run_stays(
        jobs in prop::collection::vec((random(4), prop::collection::vec(any::<bool>(), 4)), 1..80),
        urgent in prop::collection::vec((0..80u64, prop_oneof![Just(Urgency::First), Just(Urgency::Last)]), 0..8),
        batch_ms in prop_oneof![Just(0), 1..800u64],
    ) {
        let mut world = World::new(batch_ms, &[]);
        let mut moved = urgent.into_iter();
        for (job, can) in jobs {
            world.add(job);
            if let Some((seq, urgency)) = moved.next() {
                let is_there = world.fair.get(id(seq)).is_some();
                prop_assert_eq!(world.fair.set_urgency(id(seq), urgency), is_there);
            }
            let can_run = |entry: &Entry| can[world.jobs[entry.seq as usize].owner];
            let heads: Vec<Entry> = (0..4)
                .filter_map(|owner| world.fair.own(&user(owner)).next().cloned())
                .filter(|head| can_run(head))
                .collect();
            let chosen = world.pick(&can_run);
            prop_assert_eq!(chosen.is_none(), heads.is_empty());
            let Some(chosen) = chosen else { continue };
            let head = heads.iter().find(|head| head.id == chosen);
            prop_assert!(head.is_some());
            let most_urgent = heads.iter().map(|head| head.urgency).min();
            prop_assert_eq!(head.map(|head| head.urgency), most_urgent);
            world.run(chosen);
        }
        for owner in 0..4 {
            let own: Vec<&Entry> = world.fair.own(&user(owner)).collect();
            let is_sorted = own.is_sorted_by(|one, other| {
                one.urgency < other.urgency
                    || one.urgency == other.urgency
                        && (one.urgency == Urgency::First || one.number <= other.number)
            });
            prop_assert!(is_sorted);
        }
    }

    /// Whatever numbers a user gives his jobs: the GPU goes to the same users at the same times.
    #[test]
    fn numbers_never_pass_a_foreign_job(
        jobs in prop::collection::vec(random(4), 1..80),
        numbers in prop::collection::vec(any::<i8>(), 80),
        start in 0..40usize,
    ) {
        // Else it is another job of his that takes longer or loads another model.
        let alike = |job: &Random, number| Random {
            number,
            expected: 10 + job.owner as u64,
            measured: 10 + job.owner as u64,
            model: job.owner as u64,
            ..*job
        };
        let mut one = World::new(15, &[]);
        let mut other = World::new(15, &[]);
        for (place, job) in jobs.iter().enumerate() {
            let number = if job.owner == 0 { numbers[place] } else { job.number };
            one.add(alike(job, job.number));
            other.add(alike(job, number));
            if place >= start {
                let first = one.pick(&|_| true).unwrap();
                let second = other.pick(&|_| true).unwrap();
                prop_assert_eq!(one.run(first).owner, other.run(second).owner);
            }
        }
    }

    /// A job that is put back without having cost anything leaves all as it was.
    #[test]
    fn what_is_put_back_changes_nothing(
        jobs in prop::collection::vec(random(4), 1..60),
        at in 0..60usize,
    ) {
        let mut world = World::new(0, &jobs);
        let mut plain = World::new(0, &jobs);
        let mut count = 0;
        while let Some(chosen) = plain.pick(&|_| true) {
            if count == at {
                let taken = world.pick(&|_| true).unwrap();
                let expected = world.jobs[world.fair.get(taken).unwrap().seq as usize].expected;
                let entry = world.fair.start(taken, expected).unwrap();
                world.fair.ended(&entry.user, expected, 0);
                world.fair.add(entry);
            }
            prop_assert_eq!(world.pick(&|_| true), Some(chosen));
            world.run(chosen);
            plain.run(chosen);
            count += 1;
        }
        prop_assert!(world.fair.is_empty());
    }

    /// The forecast is what happens if all goes as expected.
    #[test]
    fn the_forecast_is_what_happens(
        jobs in prop::collection::vec(random(5), 1..80),
        before in 0..20usize,
        urgent in prop::collection::vec((0..80u64, prop_oneof![Just(Urgency::First), Just(Urgency::Last)]), 0..8),
        remaining in prop::collection::vec(0..2000u64, 0..3),
        slots in 1..4usize,
        batch_ms in prop_oneof![Just(0), 1..800u64],
    ) {
        let mut world = World::new(batch_ms, &jobs);
        for _ in 0..before.min(jobs.len()) {
            let chosen = world.pick(&|_| true).unwrap();
            world.run(chosen);
        }
        for (seq, urgency) in urgent {
            world.fair.set_urgency(id(seq), urgency);
        }
        let World { mut fair, rules, .. } = world;
        let expected = |entry: &Entry| jobs[entry.seq as usize].expected;
        let told = fair.forecast(&rules, &expected, &remaining, slots, 1000);
        let few = fair.forecast(&rules, &expected, &remaining, slots, 3);
        prop_assert_eq!(&told[..told.len().min(3)], &few[..]);
        let mut free: Vec<(u64, Option<u64>)> = vec![(0, None); slots.max(remaining.len())];
        for (slot, busy) in free.iter_mut().zip(&remaining) {
            slot.0 = *busy;
        }
        let mut happened = Vec::new();
        while let Some(slot) = free.iter_mut().min_by_key(|slot| slot.0) {
            let Some(chosen) = fair.pick(&rules, slot.1, &expected, &|_| true) else {
                break;
            };
            let takes = expected(fair.get(chosen).unwrap());
            let entry = fair.start(chosen, takes).unwrap();
            happened.push((chosen, slot.0));
            slot.0 += takes;
            slot.1 = entry.model.or(slot.1);
        }
        prop_assert_eq!(told, happened);
    }
}
