use std::num::NonZero;
use std::sync::Arc;
use std::task::Waker;

use super::*;

/// Who computes after `first` of the plugins in `lines` asked for turns in this order, and one turn after
/// another ended.
fn order(at_once: usize, lines: &[u64]) -> Vec<Vec<u64>> {
    let turns = Turns::new(NonZero::new(at_once));
    let mut asked: Vec<(u64, Part, Another)> = Vec::new();
    for line in lines {
        let part = turns.part(LineId(*line));
        let another = part.another(None, CancelHandle::default());
        asked.push((*line, part, another));
    }
    let mut seen = Vec::new();
    loop {
        let computing: Vec<usize> = (0..asked.len()).filter(|index| is_ready(&mut asked[*index].2)).collect();
        let Some(first) = computing.first() else { return seen };
        seen.push(computing.iter().map(|index| asked[*index].0).collect());
        asked.remove(*first).1.leave();
    }
}

fn is_ready(another: &mut Another) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    let mut poll = || Pin::new(&mut *another).poll(&mut context).is_ready();
    // The first time it gives way whatever happens.
    poll() || poll()
}

#[test]
fn plugins_take_turns_and_so_do_the_calls_of_one() {
    assert_eq!(order(1, &[1]), [[1]]);
    assert_eq!(order(1, &[1, 1, 1, 1, 2, 3]), [[1], [2], [3], [1], [1], [1]]);
    assert_eq!(order(2, &[1, 1, 1, 2]), [vec![1, 1], vec![1, 2], vec![1, 2], vec![2]]);
    assert_eq!(order(9, &[2, 1]), [vec![2, 1], vec![1]]);
}

#[test]
fn whoever_asks_gives_way_once() {
    let turns = Turns::new(NonZero::new(1));
    let part = turns.part(LineId::next());
    let mut another = part.another(None, CancelHandle::default());
    let mut context = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut another).poll(&mut context).is_pending());
    assert!(Pin::new(&mut another).poll(&mut context).is_ready());
}

#[test]
fn overdue_and_cancelled_calls_wait_no_longer() {
    let turns = Turns::new(NonZero::new(1));
    let [holds, due, cancelled, patient] = [(); 4].map(|()| turns.part(LineId::next()));
    let cancel = CancelHandle::default();
    let mut held = holds.another(None, CancelHandle::default());
    let mut overdue = due.another(Some(10), CancelHandle::default());
    let mut stopped = cancelled.another(None, cancel.clone());
    let mut waits = patient.another(None, CancelHandle::default());
    turns.release_overdue(9);
    assert!(is_ready(&mut held));
    for another in [&mut overdue, &mut stopped, &mut waits] {
        assert!(!is_ready(another));
    }
    turns.release_overdue(10);
    assert!(is_ready(&mut overdue));
    assert!(!is_ready(&mut stopped));
    cancel.cancel();
    turns.release_overdue(10);
    assert!(is_ready(&mut stopped));
    // They have no turn: leaving gives none on.
    due.leave();
    cancelled.leave();
    assert!(!is_ready(&mut waits));
    holds.leave();
    assert!(is_ready(&mut waits));
}

#[test]
fn whoever_gives_up_is_not_waited_for() {
    let turns = Turns::new(NonZero::new(1));
    let [holds, gone, waits] = [(); 3].map(|()| turns.part(LineId::next()));
    let _held = holds.another(None, CancelHandle::default());
    drop(gone.another(None, CancelHandle::default()));
    let mut waiting = waits.another(None, CancelHandle::default());
    gone.leave();
    holds.leave();
    assert!(is_ready(&mut waiting));
    waits.leave();
    assert!(turns.lines().waiting.is_empty());
    assert_eq!(turns.lines().free, 1);
}

#[test]
fn turns_are_neither_lost_nor_made() {
    let turns = Turns::new(NonZero::new(3));
    let threads = (0..8).map(|index| {
        let turns: Arc<Turns> = turns.clone();
        thread::spawn(move || {
            let part = turns.part(LineId(index % 3));
            for round in 0..2_000 {
                let mut another = part.another(Some(round), CancelHandle::default());
                if round % 5 == 0 {
                    drop(another);
                } else {
                    while !is_ready(&mut another) {
                        thread::yield_now();
                    }
                }
                if round % 7 == 0 {
                    turns.release_overdue(round);
                }
                part.leave();
            }
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.join().expect("no thread panics");
    }
    assert!(turns.lines().waiting.is_empty());
    assert_eq!(turns.lines().free, 3);
}
