//! How many rows of a prompt one submit reads, so that none keeps the GPU for long: a browser draws its page with it, and
//! a driver takes a submit of seconds for a hung GPU. And how many steps of an answer one submit holds, so that a fast GPU
//! does not wait for submits, and on a slow one each token is seen as it comes.

use std::rc::Rc;

use crate::model::MOST_STEPS;

/// Milliseconds since some moment, from who embeds the engine: there is no clock in here.
pub type Clock = Rc<dyn Fn() -> f64>;

/// What a submit of a prompt may take.
const BUDGET: f64 = 100.0;

/// What a submit of several steps of an answer may take: half a frame of a screen, so that nobody sees that its tokens
/// came at once.
const STEPS_BUDGET: f64 = 8.0;

/// How much of each measurement goes into the time of a step. Who was slow to ask finds what was under way done, and its
/// last steps seem to have taken no time: a few of them after one long pause must not make the mean small.
const WEIGHT: f64 = 0.25;

/// Submits of an answer that are under way at once. Two beside the one that is waited for hide a browser's 2 ms between
/// two looks at unfinished work, be they of [`MOST_STEPS`] of the fastest steps or of one that takes longer than half of
/// [`STEPS_BUDGET`]; more only delay a stop.
pub const SUBMITS_AHEAD: usize = 3;

/// Steps that one submit of an answer holds when one takes so many milliseconds.
pub fn steps_in_submit(step: f64) -> usize {
    ((STEPS_BUDGET / step) as usize).clamp(1, MOST_STEPS)
}

/// Rows of the first submit, whose time nobody knows.
const FIRST_ROWS: u32 = 16;

/// How much larger than the last a submit may be: a first measurement counts shaders that were made for it.
const GROWTH: f64 = 4.0;

/// Rows and steps for each submit, by how long the last ones took.
pub(super) struct Pace {
    clock: Option<Clock>,
    most: u32,
    next: u32,
    /// Milliseconds of a step of an answer, once known.
    step: Option<f64>,
    /// When the last submit was done.
    done: f64,
}

impl Pace {
    /// Of at most so many rows; without a clock always so many, and one step.
    pub fn new(clock: Option<Clock>, most: u32) -> Self {
        let next = if clock.is_some() { FIRST_ROWS.min(most) } else { most };
        Self { clock, most, next, step: None, done: 0.0 }
    }

    /// Rows for the next submit.
    pub fn rows(&self) -> usize {
        self.next as usize
    }

    /// Steps for the next submit of an answer.
    pub fn steps(&self) -> usize {
        self.step.map_or(1, steps_in_submit)
    }

    /// The time to give [`Pace::finished`] or [`Pace::stepped`] for what is submitted now.
    pub fn now(&self) -> f64 {
        self.clock.as_ref().map_or(0.0, |now| now())
    }

    /// A submit of `rows` from the time `submitted` is done. It began when the one before it was done, or when it was
    /// submitted.
    pub fn finished(&mut self, rows: usize, submitted: f64) {
        let Some(now) = self.clock.as_ref().map(|now| now()) else { return };
        let took = now - submitted.max(self.done);
        self.done = now;
        let fit = rows as f64 * (BUDGET / took.max(0.1)).min(GROWTH);
        self.next = (fit as u32).clamp(1, self.most);
    }

    /// A submit of so many steps of an answer is done. It is a measurement when it stood behind another one; the first of
    /// an answer did not.
    pub fn stepped(&mut self, steps: usize, submitted: f64) {
        let Some(now) = self.clock.as_ref().map(|now| now()) else { return };
        if submitted <= self.done {
            let took = (now - self.done) / steps as f64;
            self.step = Some(self.step.map_or(took, |mean| mean + WEIGHT * (took - mean)));
        }
        self.done = now;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A GPU that takes `fixed + per_row * rows` ms, one submit after the other, two of them under way.
    fn run(per_row: f64, fixed: f64, most: u32, rows: usize) -> Vec<(usize, f64)> {
        let time = Rc::new(Cell::new(1000.0));
        let clock = time.clone();
        let mut pace = Pace::new(Some(Rc::new(move || clock.get())), most);
        let (mut left, mut free, mut took) = (rows, 0.0, Vec::new());
        let mut waiting: Option<(usize, f64, f64)> = None;
        while left > 0 || waiting.is_some() {
            let next = (left > 0).then(|| {
                let rows = pace.rows().min(left);
                left -= rows;
                let submitted = pace.now();
                let takes = fixed + per_row * rows as f64;
                free = f64::max(free, submitted) + takes;
                took.push((rows, takes));
                (rows, submitted, free)
            });
            if let Some((rows, submitted, done)) = std::mem::replace(&mut waiting, next) {
                time.set(f64::max(time.get(), done));
                pace.finished(rows, submitted);
            }
        }
        took
    }

    #[test]
    fn submits_take_about_the_budget() {
        for (per_row, fixed) in [(0.2, 5.0), (2.0, 0.0), (7.0, 20.0), (40.0, 1.0)] {
            let took = run(per_row, fixed, 512, 4000);
            // Two are under way before the first is known.
            for (rows, ms) in &took[2..] {
                assert!(*ms <= 1.01 * BUDGET + fixed + per_row, "{rows} rows took {ms} ms at {per_row} a row");
            }
            let mean = took.iter().map(|t| t.1).sum::<f64>() / took.len() as f64;
            assert!(mean > 0.4 * BUDGET, "{mean} ms on average at {per_row} a row: {took:?}");
        }
    }

    #[test]
    fn a_row_that_takes_longer_is_read_alone() {
        assert!(run(700.0, 0.0, 64, 60).iter().skip(2).all(|t| t.0 == 1));
    }

    #[test]
    fn a_fast_gpu_gets_the_most_rows() {
        let rows: Vec<usize> = run(0.001, 0.1, 512, 4000).iter().map(|t| t.0).collect();
        assert_eq!(rows[..7], [16, 16, 64, 64, 256, 256, 512], "two are under way at each size");
        assert!(rows[7..rows.len() - 1].iter().all(|&r| r == 512), "{rows:?}");
    }

    #[test]
    fn without_a_clock_all_are_the_most() {
        let mut pace = Pace::new(None, 64);
        pace.finished(64, pace.now());
        pace.stepped(1, pace.now());
        assert_eq!((pace.rows(), pace.steps()), (64, 1));
    }

    /// Steps of each submit of an answer whose steps take `step` ms on the GPU, behind a first one of 500 ms; before it
    /// waits for submit k, who asks sleeps so many ms.
    fn answer(step: f64, sleeps: impl Fn(usize) -> f64) -> Vec<usize> {
        let time = Rc::new(Cell::new(1000.0));
        let clock = time.clone();
        let mut pace = Pace::new(Some(Rc::new(move || clock.get())), 64);
        let (mut free, mut submits) = (1500.0, vec![1]);
        let mut under_way = std::collections::VecDeque::from([(1, 1000.0, free)]);
        for k in 0..60 {
            while under_way.len() < SUBMITS_AHEAD {
                let (steps, submitted) = (pace.steps(), pace.now());
                free = f64::max(free, submitted) + step * steps as f64;
                under_way.push_back((steps, submitted, free));
                submits.push(steps);
            }
            time.set(time.get() + sleeps(k));
            let (steps, submitted, done) = under_way.pop_front().expect("one that was submitted");
            time.set(f64::max(time.get(), done));
            pace.stepped(steps, submitted);
        }
        submits
    }

    #[test]
    fn fast_steps_share_a_submit_and_slow_ones_come_alone() {
        for (step, steps) in [(0.05, 4), (0.7, 4), (1.9, 4), (2.5, 3), (3.5, 2), (4.5, 1), (20.0, 1), (100.0, 1)] {
            let submits = answer(step, |_| 0.0);
            // Three are under way when the first is done, which measures nothing; the next one does.
            assert_eq!(submits[..4], [1; 4], "at {step} ms a step");
            assert!(submits[4..].iter().all(|&s| s == steps), "at {step} ms a step: {submits:?}");
        }
    }

    #[test]
    fn a_reader_that_pauses_does_not_make_slow_steps_look_fast() {
        for pause in [5.0, 50.0, 400.0, 5000.0] {
            for every in 2..12 {
                let submits = answer(20.0, |k| if k % every == every - 1 { pause } else { 0.0 });
                assert!(submits.iter().all(|&s| s == 1), "{pause} ms every {every}: {submits:?}");
            }
        }
        // One long pause costs a few submits of one step.
        let submits = answer(0.7, |k| if k == 20 { 100.0 } else { 0.0 });
        assert!(submits[40..].iter().all(|&s| s == 4), "{submits:?}");
    }
}
