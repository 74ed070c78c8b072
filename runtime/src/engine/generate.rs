//! One answer: the prompt is read in chunks, then steps run ahead of the CPU, each taking its token from where the last
//! one's sampler left it, and on a fast GPU several in one submit.

use std::collections::VecDeque;
use std::rc::Rc;

use super::pace::SUBMITS_AHEAD;
use super::snapshot::History;
use super::{Engine, SamplingOptions};

use crate::model::{Row, Sampled, Step, Ticket, Token};
use crate::text::{StopMatcher, TextStream};
use crate::{Error, Result};

/// Asked between the chunks of a prompt whether to give up.
pub type Abort = Rc<dyn Fn() -> bool>;

/// How to answer.
#[derive(Clone, Default)]
pub struct GenerateOptions {
    pub sampling: SamplingOptions,
    /// Tokens to generate at most; what the context leaves when not given.
    pub max_tokens: Option<usize>,
    /// Texts that end the answer; they are not part of it.
    pub stop: Vec<String>,
    /// The checkpoint's end tokens do not end the answer.
    pub ignore_eos: bool,
    /// Ends the reading of a long prompt with [`Error::Aborted`].
    pub abort: Option<Abort>,
    /// Tokens of this answer that were drawn before its device was lost: they are read again one by one, as they were
    /// then, and not told again.
    pub answered: Vec<u32>,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// An end token or a stop text.
    Stop,
    /// `max_tokens` or the context.
    Length,
    /// [`Generation::stop`].
    Aborted,
}

impl FinishReason {
    /// As OpenAI's API names it, and `abort`.
    pub fn name(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::Aborted => "abort",
        }
    }
}

/// One generated token.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    pub id: u32,
    /// The text it completes: empty inside a character, for an end token, or while a stop text may be beginning.
    pub text: String,
    /// Log probability of the token, before temperature and truncation.
    pub logprob: f32,
    /// The likeliest tokens with theirs, when asked for.
    pub top: Vec<(u32, f32)>,
}

/// A finished answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// Generated ids, an end token included.
    pub ids: Vec<u32>,
    pub text: String,
    pub finish_reason: FinishReason,
    pub prompt_tokens: usize,
    /// Prompt tokens that were not read again.
    pub cached_tokens: usize,
}

impl Finished {
    /// The ids of the text: without the end token.
    pub fn content_ids(&self, stop_ids: &[u32]) -> Vec<u32> {
        let mut ids = self.ids.clone();
        if ids.last().is_some_and(|id| stop_ids.contains(id)) {
            ids.pop();
        }
        ids
    }
}

/// An answer under way. Dropped before [`Generation::finish`] it leaves its slot to be read again from a snapshot.
pub struct Generation<'a> {
    engine: &'a mut Engine,
    slot: usize,
    under_way: VecDeque<UnderWay>,
    /// What came back and was not taken yet, of the steps of one submit.
    arrived: VecDeque<Sampled>,
    /// Decode steps that may still be submitted.
    ahead: usize,
    position: u32,
    /// Everything sampled, shown or not.
    sampled: Vec<u32>,
    shown: usize,
    text: String,
    stream: TextStream,
    stops: StopMatcher,
    reason: Option<FinishReason>,
    prompt_tokens: usize,
    cached_tokens: usize,
    first_index: u32,
    /// Told by [`Generation::finish`]; otherwise dropping marks the slot lost.
    settled: bool,
}

/// Steps that were submitted together, and when.
struct UnderWay {
    ticket: Ticket,
    steps: usize,
    submitted: f64,
}

impl Engine {
    /// Reads a prompt into a slot, from the longest beginning of it that the slot or a snapshot holds, and starts the
    /// answer.
    ///
    /// # Errors
    /// [`Error::Prompt`] when it is empty or holds an id outside of the vocabulary, [`Error::Context`] when it leaves no
    /// room for an answer, [`Error::Option`] for sampling values out of range, [`Error::Aborted`] as the options ask.
    pub async fn generate(&mut self, slot: usize, prompt: &[u32], options: &GenerateOptions) -> Result<Generation<'_>> {
        self.check(prompt, options)?;
        let last = prompt.len() - 1;
        let cached = self.rewind(slot, prompt)?;
        self.slots[slot].lost = true;
        self.read(slot, cached, &prompt[..last], options).await?;
        self.slots[slot].history =
            History { tokens: prompt[..last].to_vec(), pending: Some(prompt[last]), answer_index: 0 };
        self.slots[slot].lost = false;
        if cached < last {
            self.keep(slot).await?;
        }
        self.answer(slot, prompt.len(), cached, options).await
    }

    /// Reads the tokens of a prompt from `first` on.
    async fn read(&mut self, slot: usize, first: usize, tokens: &[u32], options: &GenerateOptions) -> Result<()> {
        let again = !options.answered.is_empty();
        if !again {
            self.cuts.clear();
        }
        // One chunk runs while the next is prepared; more would only delay a stop.
        let mut waiting: Option<(Ticket, usize, f64)> = None;
        let mut at = first;
        while at < tokens.len() || waiting.is_some() {
            let next = if at < tokens.len() {
                if options.abort.as_ref().is_some_and(|asked| asked()) {
                    return Err(Error::Aborted);
                }
                let end = self.cuts.iter().copied().find(|&cut| cut > at).unwrap_or(at + self.pace.rows());
                let part = &tokens[at..end.min(tokens.len())];
                let rows = part.iter().enumerate().map(|(j, &id)| row(slot, Token::Id(id), at + j, false)).collect();
                at += part.len();
                if !again {
                    self.cuts.push(at);
                }
                Some((self.model.submit(&Step { rows })?, part.len(), self.pace.now()))
            } else {
                None
            };
            if let Some((ticket, rows, submitted)) = std::mem::replace(&mut waiting, next) {
                self.model.wait(ticket).await?;
                self.pace.finished(rows, submitted);
            }
        }
        Ok(())
    }

    /// Goes on with an answer that [`FinishReason::Length`] ended, or that a restored snapshot holds.
    pub async fn resume(&mut self, slot: usize, options: &GenerateOptions) -> Result<Generation<'_>> {
        let history = &self.slots[slot].history;
        let Some(pending) = history.pending.filter(|_| !self.slots[slot].lost) else {
            return Err(Error::Prompt(format!("slot {slot} has no answer to go on with")));
        };
        let prompt = [&history.tokens[..], &[pending]].concat();
        self.check(&prompt, options)?;
        self.answer(slot, prompt.len(), prompt.len() - 1, options).await
    }

    fn check(&self, prompt: &[u32], options: &GenerateOptions) -> Result<()> {
        options.sampling.validate(self.config.vocab_size)?;
        if prompt.is_empty() {
            return Err(Error::Prompt("it is empty".into()));
        }
        if let Some(id) = prompt.iter().find(|&&id| id as usize >= self.config.vocab_size) {
            return Err(Error::Prompt(format!("id {id}: the vocabulary ends at {}", self.config.vocab_size)));
        }
        let have = self.context();
        if prompt.len() > have {
            let most = self.config.max_position_embeddings;
            let advice = if most > have {
                format!("the context can be as large as {most}")
            } else {
                "shorten the prompt".into()
            };
            return Err(Error::Context { need: prompt.len(), have, advice });
        }
        Ok(())
    }

    /// Feeds the pending token and lets the answer run.
    async fn answer(
        &mut self,
        slot: usize,
        prompt_tokens: usize,
        cached_tokens: usize,
        options: &GenerateOptions,
    ) -> Result<Generation<'_>> {
        // The last token of an answer is not read, so that an answer can have one more than there are positions left.
        let room = self.context() - prompt_tokens + 1;
        let most = options.max_tokens.unwrap_or(room).min(room);
        let history = self.slots[slot].history.clone();
        let first_index = history.answer_index;
        let stop_ids: &[u32] = if options.ignore_eos { &[] } else { &self.defaults.stop_ids };
        let settings = options.sampling.settings(self.config.vocab_size, stop_ids, first_index + most.max(1) as u32)?;
        let mut stops = StopMatcher::new(&options.stop)?;
        let mut stream = self.tokenizer.stream();
        let mut text = String::new();
        let mut tokens = history.tokens;
        tokens.extend(history.pending);
        let answered = &options.answered[..];
        for &id in answered {
            let step = Step { rows: vec![row(slot, Token::Id(tokens[tokens.len() - 1]), tokens.len() - 1, false)] };
            let ticket = self.model.submit(&step)?;
            self.model.wait(ticket).await?;
            tokens.push(id);
            text += &stops.push(&stream.push(id)?).0;
        }
        self.model.set_sampling(slot as u32, &settings, &tokens, first_index + answered.len() as u32);
        let mut under_way = VecDeque::new();
        let mut reason = None;
        if most <= answered.len() {
            reason = Some(FinishReason::Length);
        } else {
            let position = tokens.len() - 1;
            let mut last = row(slot, Token::Id(tokens[position]), position, true);
            last.sample = true;
            let ticket = self.model.submit(&Step { rows: vec![last] })?;
            under_way.push_back(UnderWay { ticket, steps: 1, submitted: self.pace.now() });
        }
        Ok(Generation {
            position: tokens.len() as u32,
            ahead: most.saturating_sub(1 + answered.len()),
            engine: self,
            slot,
            under_way,
            arrived: VecDeque::new(),
            sampled: answered.to_vec(),
            shown: answered.len(),
            text,
            stream,
            stops,
            reason,
            prompt_tokens,
            cached_tokens,
            first_index,
            settled: false,
        })
    }
}

fn row(slot: usize, token: Token, position: usize, logits: bool) -> Row {
    Row { slot: slot as u32, token, position: position as u32, logits, sample: false }
}

impl Generation<'_> {
    /// The next token, or `None` when the answer has ended.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] and other faults of the GPU; [`Error::Gpu`] when the logits are not finite.
    pub async fn next(&mut self) -> Result<Option<Piece>> {
        if self.reason.is_some() {
            return Ok(None);
        }
        while self.ahead > 0 && self.under_way.len() < SUBMITS_AHEAD {
            let steps = self.engine.pace.steps().min(self.ahead);
            let mut next = row(self.slot, Token::FromSlot, self.position as usize, true);
            next.sample = true;
            let ticket = self.engine.model.submit_steps(&Step { rows: vec![next] }, steps)?;
            self.under_way.push_back(UnderWay { ticket, steps, submitted: self.engine.pace.now() });
            self.position += steps as u32;
            self.ahead -= steps;
        }
        let Some(sampled) = self.receive().await? else {
            self.reason = Some(FinishReason::Length);
            return Ok(None);
        };
        self.shown += 1;
        let mut text = self.stream.push(sampled.id)?;
        if sampled.has(Sampled::STOPPED) {
            self.reason = Some(FinishReason::Stop);
        } else if sampled.has(Sampled::LENGTH) {
            self.reason = Some(FinishReason::Length);
        }
        if self.reason.is_some() {
            text += &self.stream.finish()?;
        }
        let (mut text, stop) = self.stops.push(&text);
        if stop.is_some() {
            self.reason = Some(FinishReason::Stop);
        } else if self.reason.is_some() {
            text += &self.stops.finish();
        }
        self.text += &text;
        Ok(Some(Piece { id: sampled.id, text, logprob: sampled.logprob, top: sampled.best().collect() }))
    }

    /// The result of the oldest step under way; `None` when there is none, or its slot was frozen.
    async fn receive(&mut self) -> Result<Option<Sampled>> {
        if self.arrived.is_empty()
            && let Some(UnderWay { ticket, steps, submitted }) = self.under_way.pop_front()
        {
            self.arrived.extend(self.engine.model.wait(ticket).await?);
            self.engine.pace.stepped(steps, submitted);
        }
        let Some(sampled) = self.arrived.pop_front() else { return Ok(None) };
        if sampled.has(Sampled::NOT_FINITE) {
            return Err(Error::Gpu { what: "logits".into(), reason: "they are not finite".into() });
        }
        if !sampled.has(Sampled::SAMPLED) {
            return Ok(None);
        }
        self.sampled.push(sampled.id);
        Ok(Some(sampled))
    }

    /// Ends the answer after what was shown.
    pub fn stop(&mut self) {
        self.reason.get_or_insert(FinishReason::Aborted);
    }

    /// Waits for what is under way and tells the answer as it stands.
    pub async fn finish(mut self) -> Result<Finished> {
        let reason = self.reason.unwrap_or(FinishReason::Aborted);
        if reason == FinishReason::Aborted {
            let rest = self.stream.finish()?;
            let (shown, _) = self.stops.push(&rest);
            self.text += &shown;
            self.text += &self.stops.finish();
        }
        match self.settle(reason).await {
            // The answer is whole. That its slot is not is for the next one to find.
            Err(Error::DeviceLost(_)) => {}
            other => {
                other?;
                self.settled = true;
            }
        }
        Ok(Finished {
            ids: self.sampled[..self.shown].to_vec(),
            text: std::mem::take(&mut self.text),
            finish_reason: reason,
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached_tokens,
        })
    }

    /// Waits for what is under way and writes down what the slot has read.
    async fn settle(&mut self, reason: FinishReason) -> Result<()> {
        while !(self.arrived.is_empty() && self.under_way.is_empty()) {
            self.receive().await?;
        }
        let slot = &mut self.engine.slots[self.slot];
        // Every sampled token but the last has been read, whether it was shown or not.
        if let Some((&last, read)) = self.sampled.split_last() {
            slot.history.tokens.extend(slot.history.pending);
            slot.history.tokens.extend(read);
            slot.history.pending = Some(last);
            slot.history.answer_index = self.first_index + self.sampled.len() as u32;
        }
        if reason == FinishReason::Stop {
            self.engine.keep(self.slot).await?;
        }
        self.engine.mirror().await
    }
}

impl Drop for Generation<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.engine.slots[self.slot].lost = true;
        }
    }
}
