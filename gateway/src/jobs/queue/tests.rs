//! The line with a house of its own around it: who is admitted, who is next, what comes back.

use super::*;
use crate::store::JobState;
use std::cell::Cell;
use std::collections::HashMap;

/// A house in which everybody has an engine of his own, all on one GPU.
struct House {
    limits: RoleLimits,
    /// Whether engines are there at all.
    is_ready: Cell<bool>,
    /// Who may run while jobs are held back.
    owner: Option<UserId>,
    /// Jobs that one GPU takes.
    gpu_slots: usize,
}

impl House {
    fn new() -> Self {
        Self {
            limits: RoleLimits::default(),
            is_ready: Cell::new(true),
            owner: None,
            gpu_slots: 9,
        }
    }
}

impl Conditions for House {
    fn engine_of(&self, user: &UserId) -> Option<EngineId> {
        self.is_ready.get().then(|| engine(user))
    }

    fn is_full(&self, _engine: &EngineId, busy: &[EngineId]) -> bool {
        busy.len() >= self.gpu_slots
    }

    fn may_run(&self, user: &UserId, hold: Option<&Hold>) -> bool {
        hold.is_none() || self.owner.as_ref() == Some(user)
    }

    fn limits_of(&self, _user: &UserId) -> RoleLimits {
        self.limits
    }
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn engine(user: &UserId) -> EngineId {
    EngineId::User(user.clone())
}

fn line() -> Line {
    let today = DayUse::new("2026-01-31".to_owned(), []);
    Line::new(1, HashMap::new(), today)
}

fn arrival(user: &UserId) -> Arrival {
    Arrival {
        id: JobId::generate(),
        user: user.clone(),
        number: None,
        is_front: false,
        model: None,
        client_id: None,
        secrets: crate::jobs::prompt::Secrets::default(),
        created_at: 5,
    }
}

fn admit(line: &mut Line, user: &UserId, house: &House) -> Result<Admission, LimitFault> {
    line.admit(arrival(user), &engine(user), house)
}

fn runs(admission: Result<Admission, LimitFault>) -> JobId {
    match admission.unwrap() {
        Admission::Now(running) => running.entry.id,
        Admission::Later(_) => panic!("it has to wait"),
    }
}

fn waits(admission: Result<Admission, LimitFault>) -> Reservation {
    match admission.unwrap() {
        Admission::Later(reservation) => *reservation,
        Admission::Now(_) => panic!("it runs"),
    }
}

/// Lets a job wait; its id.
fn enqueue(line: &mut Line, user: &UserId, house: &House) -> JobId {
    let reservation = waits(admit(line, user, house));
    line.enqueue(&reservation);
    reservation.entry.id
}

fn recent(user: &UserId, id: JobId) -> Recent {
    Recent {
        user: user.clone(),
        id,
        state: JobState::Completed,
        ended_at: 9,
        reason: None,
    }
}

#[test]
fn whoever_finds_the_gpu_free_runs_at_once() {
    let (anna, bert, house) = (user("anna"), user("bert"), House::new());
    let mut line = line();
    let first = runs(admit(&mut line, &anna, &house));
    assert_eq!(line.running_of(&anna), 1);
    enqueue(&mut line, &bert, &house);
    assert!(line.next(6, &house).is_none(), "there is one slot");
    line.finished(recent(&anna, first), 7, "2026-01-31");
    assert_eq!(line.used_today(&anna), 7);
    assert_eq!(line.next(8, &house).unwrap().entry.user, bert);
}

#[test]
fn nobody_passes_a_job_that_is_being_written_down() {
    let (anna, bert, house) = (user("anna"), user("bert"), House::new());
    let mut line = line();
    let first = runs(admit(&mut line, &anna, &house));
    let reservation = waits(admit(&mut line, &anna, &house));
    line.refused(first);
    drop(waits(admit(&mut line, &bert, &house)));
    drop(reservation);
    runs(admit(&mut line, &bert, &house));
}

#[test]
fn what_keeps_a_job_from_running_at_once() {
    let (anna, bert) = (user("anna"), user("bert"));
    let hold = Hold {
        reason: crate::jobs::hold::HoldReason::Owner,
        since: 0,
        until: None,
        until_idle: false,
    };
    let mut held = line();
    held.set_hold(Some(hold));
    let house = House {
        owner: Some(anna.clone()),
        ..House::new()
    };
    drop(waits(admit(&mut held, &bert, &house)));
    runs(admit(&mut held, &anna, &house));

    let mut two_slots = line();
    two_slots.set_slots(2);
    let full = House {
        gpu_slots: 1,
        ..House::new()
    };
    runs(admit(&mut two_slots, &anna, &full));
    drop(waits(admit(&mut two_slots, &bert, &full)));
    let roomy = House::new();
    drop(waits(admit(&mut two_slots, &anna, &roomy)));
    runs(admit(&mut two_slots, &bert, &roomy));
}

#[test]
fn limits_count_what_waits_and_what_is_being_written_down() {
    let anna = user("anna");
    let house = House {
        limits: RoleLimits {
            jobs_waiting: Some(2),
            gpu_a_day: crate::clock::Minutes::limit(1),
            ..RoleLimits::default()
        },
        ..House::new()
    };
    let mut line = line();
    let first = runs(admit(&mut line, &anna, &house));
    enqueue(&mut line, &anna, &house);
    let reservation = waits(admit(&mut line, &anna, &house));
    let fault = admit(&mut line, &anna, &house).unwrap_err();
    assert_eq!(fault, LimitFault::JobsWaiting(2));
    drop(reservation);
    enqueue(&mut line, &anna, &house);
    line.finished(recent(&anna, first), 60_000, "2026-01-31");
    assert!(line.next(6, &house).is_none(), "the day is used up");
    line.turn_to("2026-02-01");
    assert!(line.next(6, &house).is_some());
}

#[test]
fn a_job_that_is_put_back_is_the_next_again() {
    let (anna, house) = (user("anna"), House::new());
    let mut line = line();
    let first = runs(admit(&mut line, &anna, &house));
    let second = enqueue(&mut line, &anna, &house);
    let back = Back {
        attempts: 1,
        is_posted: true,
        is_charged: true,
    };
    assert!(line.put_back(first, back));
    assert_eq!(line.own_waiting(&anna), [first, second]);
    house.is_ready.set(false);
    assert!(line.next(6, &house).is_none(), "its engine is gone");
    house.is_ready.set(true);
    let again = line.next(6, &house).unwrap();
    assert_eq!((again.entry.id, again.details.attempts), (first, 1));
}

#[test]
fn only_the_owner_of_a_job_or_an_admin_ends_it() {
    let (anna, bert, house) = (user("anna"), user("bert"), House::new());
    let mut line = line();
    let running = runs(admit(&mut line, &anna, &house));
    let waiting = enqueue(&mut line, &anna, &house);
    assert!(!line.interrupt(running, Some(&bert), Intent::Cancel));
    assert!(line.withdraw(&[waiting, running], Some(&bert)).is_empty());
    assert!(line.interrupt(running, None, Intent::PutBack));
    assert!(line.interrupt(running, Some(&anna), Intent::Cancel));
    assert!(line.interrupt(running, None, Intent::PutBack));
    let intent = line.running_job(running).unwrap().intent;
    assert_eq!(intent, Some(Intent::Cancel), "whoever wants it gone wins");
    assert_eq!(line.withdraw(&[waiting], None).len(), 1);
    assert_eq!(line.waiting_of(&anna), 0);
}

#[test]
fn a_job_that_is_cancelled_while_it_is_put_back_does_not_go_back() {
    let (anna, house) = (user("anna"), House::new());
    let mut line = line();
    let id = runs(admit(&mut line, &anna, &house));
    assert!(line.interrupt(id, Some(&anna), Intent::Cancel));
    let back = Back {
        attempts: 0,
        is_posted: false,
        is_charged: false,
    };
    assert!(!line.put_back(id, back));
    assert_eq!((line.running_of(&anna), line.waiting_of(&anna)), (1, 0));
}

#[test]
fn an_id_is_taken_once() {
    let (anna, bert, house) = (user("anna"), user("bert"), House::new());
    let mut line = line();
    let running = arrival(&anna);
    let same = |id, user: &UserId| Arrival {
        id,
        ..arrival(user)
    };
    let id = running.id;
    runs(line.admit(running, &engine(&anna), &house));
    assert_eq!(
        line.admit(same(id, &bert), &engine(&bert), &house)
            .unwrap_err(),
        LimitFault::SameId
    );
    let reservation = waits(admit(&mut line, &bert, &house));
    let id = reservation.entry.id;
    let again = line.admit(same(id, &bert), &engine(&bert), &house);
    assert_eq!(again.unwrap_err(), LimitFault::SameId);
    drop(reservation);
    waits(line.admit(same(id, &bert), &engine(&bert), &house));
}

#[test]
fn an_engine_that_cannot_be_reached_gets_no_job_for_a_while_and_others_do() {
    let (anna, bert, house) = (user("anna"), user("bert"), House::new());
    let mut line = line();
    line.set_slots(2);
    let pauses = (0..7).map(|_| line.engine_unreachable(&engine(&anna)).as_secs());
    assert_eq!(pauses.collect::<Vec<_>>(), [1, 2, 4, 8, 16, 30, 30]);
    let waiting = enqueue(&mut line, &anna, &house);
    let others = enqueue(&mut line, &bert, &house);
    assert_eq!(line.next(6, &house).unwrap().entry.id, others);
    assert!(line.next(6, &house).is_none());
    line.engine_reached(&engine(&anna));
    assert_eq!(line.next(6, &house).unwrap().entry.id, waiting);
}
