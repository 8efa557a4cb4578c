//! Several threads run one graph: each claims the next step of the stage under way.
//!
//! The host brings the threads. For each it makes an instance over the same memory and calls
//! `wg_work` with the number of the run, while the first thread calls `wg_run`. Nobody counts who has
//! come: a thread that is late finds less to do, and one that never comes is not missed. So one thread
//! is enough, and it runs the steps in order.
//!
//! Where the steps run several times (`Rounds`), the stages of every round follow those of the one
//! before; whoever ends a round's last step makes the turn to the next.
//!
//! Only the first thread allocates (std was built for one thread): kernels that call the workspace
//! are alone in their stage, and stages follow each other.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use crate::graph::{stages, steps};
use crate::schedule::{one_by_one, Failure, Rounds, ONCE, STOPPED};

/// The stage under way, counted through all rounds, in the upper half; in the lower one how many of
/// its steps were claimed from the front, then, in the lowest 16 bits, from the back.
///
/// Threads that claim from different ends get, stage after stage, neighbouring parts of the tensors,
/// which they find in their own caches.
static CLAIM: AtomicU64 = AtomicU64::new(0);
/// How many steps of that stage have ended.
static DONE: AtomicU32 = AtomicU32::new(0);
/// Threads asleep until `CLAIM` shows another stage.
static SLEEPERS: AtomicU32 = AtomicU32::new(0);
/// The first failed step in the upper half, its code in the lower one; 0 while there is none.
static FAILED: AtomicU64 = AtomicU64::new(0);
/// How many stages all rounds of the run have. None is reached before it begins or once it failed.
static TOTAL: AtomicU32 = AtomicU32::new(0);
/// A claim of no stage of any run.
const NOWHERE: u64 = (u32::MAX as u64) << 32;

struct Turn(UnsafeCell<fn(usize)>);

// The first thread writes it before a run begins.
unsafe impl Sync for Turn {}

/// `Rounds::turn` of the run under way.
static TURN: Turn = Turn(UnsafeCell::new(ONCE.turn));
/// How many runs have begun.
static RUNS: AtomicU32 = AtomicU32::new(0);
/// Not 0 from `wg_stop` on: the instance is of no further use.
static ENDED: AtomicU32 = AtomicU32::new(0);

/// How often a thread looks for work before it sleeps. To wake a thread takes tens of microseconds,
/// longer than most stages.
const LOOKS: u32 = 100_000;

extern "C" {
    /// memory.atomic.wait32 for at most 10 ms, since a thread asleep sees no time limit. The link
    /// stage brings it: Rust's own is unstable.
    fn wasmgraph_wait(address: *const u32, expected: u32) -> i32;
    /// memory.atomic.notify, everybody.
    fn wasmgraph_notify(address: *const u32) -> i32;
}

/// The upper half of `CLAIM`, little-endian.
fn stage_address() -> *const u32 {
    (&CLAIM as *const AtomicU64).cast::<u32>().wrapping_add(1)
}

fn stage_of(claim: u64) -> usize {
    (claim >> 32) as usize
}

/// How many steps of its stage are claimed.
fn claimed(claim: u64) -> u32 {
    (claim as u32 >> 16) + (claim as u32 & 0xffff)
}

/// From which end of a stage a thread claims steps.
#[derive(Clone, Copy)]
struct End {
    /// What a claim adds to `CLAIM`.
    one: u64,
    is_front: bool,
}

impl End {
    fn of(thread: u32) -> End {
        match thread % 2 {
            0 => End {
                one: 1 << 16,
                is_front: true,
            },
            _ => End {
                one: 1,
                is_front: false,
            },
        }
    }

    /// The step that a claim gives, of `count`; there is none where all are claimed.
    fn step(self, claim: u64, count: u32) -> Option<usize> {
        let step = match self.is_front {
            true => claim as u32 >> 16,
            false => (count - 1).wrapping_sub(claim as u32 & 0xffff),
        };
        (claimed(claim) < count).then_some(step as usize)
    }
}

/// Whether all rounds are over, or the run has failed.
fn is_over(stage: usize) -> bool {
    stage >= TOTAL.load(SeqCst) as usize
}

/// The first step of a stage, and how many there are.
fn extent(stage: usize) -> (usize, u32) {
    let stage = stage % stages().len();
    let first = stages()[stage];
    let end = stages().get(stage + 1).copied().unwrap_or(steps().len());
    (first, (end - first) as u32)
}

/// The first thread's part in a run.
///
/// # Safety
/// As `schedule::run`; no thread of an earlier run is still at work.
pub unsafe fn run(rounds: Rounds) -> Result<(), Failure> {
    let total = stages().len().checked_mul(rounds.count);
    match total.map(u32::try_from) {
        Some(Ok(total)) if total > 0 && total < u32::MAX => TOTAL.store(total, SeqCst),
        // Nothing to share, or more stages than can be counted.
        _ => {
            skip();
            return one_by_one(rounds);
        }
    }
    *TURN.0.get() = rounds.turn;
    (rounds.turn)(0);
    DONE.store(0, SeqCst);
    FAILED.store(0, SeqCst);
    CLAIM.store(0, SeqCst);
    begin();
    work(0);
    match FAILED.load(SeqCst) {
        0 => Ok(()),
        failed => Err(Failure {
            step: (failed >> 32) as usize,
            code: failed as u32 as i32,
        }),
    }
}

/// A run that ends before its first step: the threads that wait for it leave.
pub fn skip() {
    CLAIM.store(NOWHERE, SeqCst);
    begin();
}

/// Lets the threads that wait for this run begin.
fn begin() {
    RUNS.fetch_add(1, SeqCst);
    unsafe { wasmgraph_notify((&RUNS as *const AtomicU32).cast()) };
}

/// Claims and runs steps until all stages of all rounds have ended.
unsafe fn work(thread: u32) {
    let side = End::of(thread);
    let mut claim = CLAIM.fetch_add(side.one, SeqCst);
    loop {
        let stage = stage_of(claim);
        if is_over(stage) {
            return;
        }
        let (first, count) = extent(stage);
        let step = match side.step(claim, count) {
            Some(share) => first + share,
            None => {
                wait_beyond(stage);
                claim = CLAIM.fetch_add(side.one, SeqCst);
                continue;
            }
        };
        let code = steps()[step].run();
        if code != 0 {
            fail(step, code);
            return;
        }
        claim = match DONE.fetch_add(1, SeqCst) + 1 == count {
            true => match advance(stage, side) {
                Some(claim) => claim,
                None => return,
            },
            false => CLAIM.fetch_add(side.one, SeqCst),
        }
    }
}

/// Ends a stage and claims a step of the next one; None where the run was stopped.
fn advance(stage: usize, side: End) -> Option<u64> {
    DONE.store(0, SeqCst);
    if (stage + 1) % stages().len() == 0 {
        let turn = unsafe { *TURN.0.get() };
        turn((stage + 1) / stages().len());
    }
    let next = ((stage + 1) as u64) << 32;
    let mine = |claim: u64| stage_of(claim) == stage;
    CLAIM
        .fetch_update(SeqCst, SeqCst, |claim| mine(claim).then(|| next + side.one))
        .ok()?;
    if has_work(next + side.one) {
        wake();
    }
    Some(next)
}

/// Whether there is something to do for a thread that comes now: a step, or to leave.
fn has_work(claim: u64) -> bool {
    is_over(stage_of(claim)) || claimed(claim) < extent(stage_of(claim)).1
}

/// Waits until a later stage has work; a stage of one step belongs to whoever ended the last one.
fn wait_beyond(stage: usize) {
    let mut seen = stage;
    loop {
        for _ in 0..LOOKS {
            let claim = CLAIM.load(SeqCst);
            seen = stage_of(claim);
            if seen != stage && has_work(claim) {
                return;
            }
        }
        SLEEPERS.fetch_add(1, SeqCst);
        unsafe { wasmgraph_wait(stage_address(), seen as u32) };
        SLEEPERS.fetch_sub(1, SeqCst);
    }
}

fn wake() {
    if SLEEPERS.load(SeqCst) > 0 {
        unsafe { wasmgraph_notify(stage_address()) };
    }
}

/// Ends the run with an error; of several the first counts.
fn fail(step: usize, code: i32) {
    let failed = (step as u64) << 32 | u64::from(code as u32);
    let _ = FAILED.compare_exchange(0, failed, SeqCst, SeqCst);
    CLAIM.store(NOWHERE, SeqCst);
    wake();
}

/// The entry of every thread but the first: thread number `thread` (from 1 on) joins run number `run`
/// (from 1 on). The link stage's `wg_work` calls it once the thread has a stack of its own.
#[no_mangle]
pub extern "C" fn wasmgraph_work(thread: u32, run: u32) -> i32 {
    let mut looks = 0;
    while ENDED.load(SeqCst) == 0 {
        let begun = RUNS.load(SeqCst);
        if begun == run {
            unsafe { work(thread) };
            return 0;
        }
        if begun > run {
            return 0;
        }
        looks += 1;
        if looks > LOOKS {
            unsafe { wasmgraph_wait((&RUNS as *const AtomicU32).cast(), begun) };
        }
    }
    0
}

/// Makes every thread leave as soon as it has ended its step: one of them ended early, by a trap.
#[no_mangle]
pub extern "C" fn wg_stop() {
    ENDED.store(1, SeqCst);
    fail(0, STOPPED);
    begin();
}
