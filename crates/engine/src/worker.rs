//! The thread that owns the model. It evaluates the prompts and generates the tokens for all
//! answers.
//!
//! Each answer uses one sequence of the KV cache. A new conversation starts from the sequence with
//! the longest common prefix: that sequence is rolled back to the prefix, and only the new text is
//! evaluated. If that sequence is in use, or if too many of its tokens would be rolled back, a
//! different sequence is used, which shares the cells of the prefix without copying them. All
//! answers advance in one batch.
//!
//! Tokens are generated only when the reader of the answer is waiting for more text. When a reader
//! stops, only guessed tokens are wasted. Guessed tokens ([`crate::draft`]) are evaluated together
//! with the last token, and correct guesses are kept until the reader asks for more.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use llama_cpp_2::DecodeError;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::token::LlamaToken;
use models::{Delta, End, EndReason, Error, Request, Usage};
use tokio::sync::{mpsc, oneshot};

use crate::cache::{Cache, SEQUENCES};
use crate::constrain::{Constraint, Grammars};
use crate::draft::Draft;
use crate::output::Output;
use crate::sample::{Choice, Sampler};
use crate::saved::Saved;
use crate::template::Prompt;

/// Maximum number of tokens to evaluate at once. A batch cannot be interrupted: even if a reader
/// stops, the batch runs to completion, and all other answers wait for it. On two cores, a full
/// batch of prompt tokens takes about a second.
pub(crate) const BATCH: usize = 128;
/// The shortest stable prefix worth saving, in bytes. A shorter one is faster to evaluate than to
/// load.
const LEAST_SAVED: usize = 1024;
/// How long a batch waits for a reader to ask for more text. After that, the batch runs without
/// that reader's answer.
const PATIENCE: Duration = Duration::from_millis(2);
/// A conversation reuses an idle sequence if at most this many tokens would have to be rolled back.
/// Otherwise the sequence is kept for its own conversation, and both conversations share the common
/// part.
const ROLLED_BACK: usize = 16;

/// A message to the thread.
pub(crate) enum Command {
    /// Start an answer.
    Start(Box<Job>),
    /// The reader of this answer is waiting for more.
    Next(u64),
    /// The reader of this answer is gone.
    Cancel(u64),
    /// The model is no longer needed.
    Stop,
}

/// An answer to generate.
pub(crate) struct Job {
    pub(crate) id: u64,
    pub(crate) prompt: Prompt,
    pub(crate) request: Request,
    /// Set to true if the request's constraint cannot be enforced.
    pub(crate) unconstrained: Arc<AtomicBool>,
    /// Reports whether the answer could be started.
    pub(crate) started: oneshot::Sender<Result<(), Error>>,
    pub(crate) deltas: mpsc::UnboundedSender<Result<Delta, Error>>,
}

/// An answer in progress.
struct Answer {
    id: u64,
    /// Tokens still to be evaluated, in order: the rest of the prompt, or the last sampled token.
    todo: Vec<LlamaToken>,
    draft: Draft,
    /// Sampled tokens that the reader has not asked for yet. All but the last have been evaluated.
    sampled: VecDeque<Choice>,
    /// The number of tokens in the stable prefix, if it should be saved once it has been evaluated.
    boundary: Option<usize>,
    prompt: Prompt,
    prompt_tokens: usize,
    cached: usize,
    generated: u64,
    max_tokens: u64,
    sampler: Sampler,
    constraint: Option<Constraint>,
    unconstrained: Arc<AtomicBool>,
    alternatives: bool,
    output: Output,
    /// Whether the reader is waiting.
    wanted: bool,
    started: Instant,
    first: Option<Instant>,
    deltas: mpsc::UnboundedSender<Result<Delta, Error>>,
}

/// The tokens in a batch that belong to one sequence.
struct Part {
    at: usize,
    /// How many tokens of [`Answer::todo`] are in the batch.
    count: usize,
    /// The index of the logits for the last of these tokens; `None` if some tokens of
    /// [`Answer::todo`] are left for a later batch.
    logits: Option<i32>,
    /// The guessed tokens that follow these `count` tokens. Each has logits.
    guess: Guess,
}

/// Tokens that probably come next.
#[derive(Default)]
struct Guess {
    tokens: Vec<LlamaToken>,
    /// Whether the answer's constraint allows no other text.
    forced: bool,
}

#[derive(Default)]
struct Slot {
    answer: Option<Answer>,
    /// The number of answers that had been started when the slot was last used.
    used: u64,
}

/// The state of the thread.
pub(crate) struct Worker<'m> {
    cache: Cache<'m>,
    batch: LlamaBatch<'static>,
    window: usize,
    saved: Option<Saved>,
    grammars: Grammars,
    /// One for each sequence in the cache.
    slots: [Slot; SEQUENCES],
    queue: VecDeque<Job>,
    answers: u64,
}

impl<'m> Worker<'m> {
    pub(crate) fn new(cache: Cache<'m>, saved: Option<Saved>) -> Self {
        Self {
            window: cache.context.n_ctx() as usize,
            cache,
            batch: LlamaBatch::new(BATCH, 1),
            saved,
            grammars: Grammars::default(),
            slots: Default::default(),
            queue: VecDeque::new(),
            answers: 0,
        }
    }

    /// Evaluates one token, to check that the model works.
    pub(crate) fn evaluate_one(&mut self) -> Result<(), Error> {
        let failed = |why: String| Error::Refused(format!("the engine cannot evaluate a token: {why}"));
        self.batch.add(LlamaToken(0), 0, &[0], true).map_err(|why| failed(why.to_string()))?;
        self.cache.context.decode(&mut self.batch).map_err(|why| failed(why.to_string()))
    }

    /// Runs until it receives [`Command::Stop`].
    pub(crate) fn run(mut self, commands: &Receiver<Command>) {
        loop {
            self.start_queued();
            let command = if self.ready() {
                commands.try_recv()
            } else {
                commands.recv().map_err(|_| TryRecvError::Disconnected)
            };
            match command {
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return,
                Ok(command) => {
                    self.take(command);
                    continue;
                }
                Err(TryRecvError::Empty) => {}
            }
            if self.slots.iter().flat_map(|slot| &slot.answer).any(|answer| !answer.ready()) {
                match commands.recv_timeout(PATIENCE) {
                    Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                    Ok(command) => {
                        self.take(command);
                        continue;
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                }
            }
            self.step(true);
        }
    }

    fn ready(&self) -> bool {
        self.slots.iter().flat_map(|slot| &slot.answer).any(Answer::ready)
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Start(job) => self.queue.push_back(*job),
            Command::Next(id) => {
                if let Some(at) = self.slot_of(id) {
                    if let Some(answer) = &mut self.slots[at].answer {
                        answer.wanted = true;
                    }
                    self.hand_over(at);
                }
            }
            Command::Stop => {}
            Command::Cancel(id) => {
                self.queue.retain(|job| job.id != id);
                if let Some(at) = self.slot_of(id) {
                    self.slots[at].answer = None;
                }
            }
        }
    }

    fn slot_of(&self, id: u64) -> Option<usize> {
        self.slots.iter().position(|slot| slot.answer.as_ref().is_some_and(|answer| answer.id == id))
    }

    /// Starts queued answers while there are free sequences.
    fn start_queued(&mut self) {
        while !self.queue.is_empty()
            && let Some(at) = self.oldest_free()
            && let Some(job) = self.queue.pop_front()
        {
            self.start(job, at);
        }
    }

    /// Starts an answer. `free` is a sequence that is not in use.
    fn start(&mut self, job: Job, free: usize) {
        let Job { id, prompt, request, unconstrained, started, deltas } = job;
        let constraint = request.constraint.as_ref().and_then(|schema| {
            let constraint = self.grammars.constraint(schema, self.cache.vocab());
            constraint.map_err(|why| leave_free(&unconstrained, &why)).ok()
        });
        let mut at = self.choose(&prompt, free);
        self.answers += 1;
        let (mut kept, mut todo) = self.cache.split(at, &prompt.text);
        let stable = &prompt.text[..prompt.stable];
        let saved = self.saved.clone().filter(|_| self.cache.exact() && stable.len() >= LEAST_SAVED);
        let mut boundary = None;
        if let Some(saved) = saved
            && self.cache.sequence(at).bytes(kept) < stable.len()
        {
            self.cache.roll_back(free, 0);
            if self.cache.load(&saved, free, stable) {
                at = free;
                (kept, todo) = self.cache.split(at, &prompt.text);
            } else {
                let (head, tail) = prompt.text.split_at(prompt.stable);
                (kept, todo) = self.cache.split(at, head);
                boundary = Some(kept + todo.len());
                todo.extend(self.cache.tokenize(tail, false));
            }
        }
        // The last token must be evaluated again, because its logits determine the next one.
        if todo.is_empty() && kept > 0 {
            kept -= 1;
            todo.extend(self.cache.sequence(at).tokens().get(kept));
        }
        let prompt_tokens = kept + todo.len();
        if prompt_tokens >= self.window || todo.is_empty() {
            let message = format!("the prompt has {prompt_tokens} tokens; the window has {}", self.window);
            let _ = started.send(Err(Error::Overflow {
                message,
                prompt_tokens: Some(prompt_tokens as u64),
                window: Some(self.window as u64),
            }));
            return;
        }
        if !self.cache.roll_back(at, kept) {
            // A recurrent state cannot be rolled back, so start over.
            self.cache.roll_back(at, 0);
            (kept, boundary) = (0, None);
            todo = self.cache.tokenize(&prompt.text, true);
        }
        if started.send(Ok(())).is_err() {
            return;
        }
        let slot = &mut self.slots[at];
        slot.used = self.answers;
        slot.answer = Some(Answer {
            id,
            todo,
            draft: Draft::new(),
            sampled: VecDeque::new(),
            boundary,
            prompt_tokens,
            cached: kept,
            generated: 0,
            max_tokens: u64::from(request.max_tokens),
            sampler: Sampler::new(request.temperature, request.seed, request.alternatives),
            constraint,
            unconstrained,
            alternatives: request.alternatives > 0,
            output: Output::new(prompt.thinking),
            prompt,
            wanted: true,
            started: Instant::now(),
            first: None,
            deltas,
        });
    }

    /// Chooses the sequence for the answer to `prompt`, and makes it begin with the longest prefix
    /// that any sequence has in common with the prompt. `oldest` is a free sequence: an empty one
    /// or, if there is none, the least recently used one.
    fn choose(&mut self, prompt: &Prompt, oldest: usize) -> usize {
        let common = (0..SEQUENCES).map(|at| (self.cache.common(at, &prompt.text), at)).max();
        let Some((common, best)) = common.filter(|(common, _)| *common > 0) else { return oldest };
        let idle = self.slots[best].answer.is_none();
        let rest = self.cache.sequence(best).len() - common;
        if best == oldest || (idle && rest <= ROLLED_BACK) {
            return best;
        }
        // The common part may end inside a word. `split` can detect this only in the sequence that
        // has the tokens after the common part, so call it before sharing.
        let (kept, _) = self.cache.split(best, &prompt.text);
        self.cache.share(best, oldest, kept);
        self.slots[best].used = self.answers;
        oldest
    }

    fn oldest_free(&self) -> Option<usize> {
        let free = (0..self.slots.len()).filter(|at| self.slots[*at].answer.is_none());
        free.min_by_key(|at| (self.cache.sequence(*at).len() > 0, self.slots[*at].used))
    }

    /// Evaluates one batch, with or without guesses, and samples the tokens that follow it.
    fn step(&mut self, guesses: bool) {
        self.batch.clear();
        let mut parts: Vec<Part> = Vec::new();
        let mut room = BATCH;
        // Answers that are already generating come first, so that a long prompt does not hold them
        // up.
        let mut order: Vec<usize> = (0..self.slots.len()).collect();
        order.sort_by_key(|at| self.slots[*at].answer.as_ref().map_or(usize::MAX, |a| a.todo.len()));
        for at in order {
            let Some(answer) = &self.slots[at].answer else { continue };
            if !answer.ready() || room == 0 {
                continue;
            }
            let start = self.cache.sequence(at).len();
            let until_boundary = answer.boundary.map_or(usize::MAX, |boundary| boundary - start);
            let count = answer.todo.len().min(room).min(until_boundary);
            let whole = count == answer.todo.len();
            for (n, token) in answer.todo[..count].iter().enumerate() {
                let last = whole && n + 1 == count;
                if self.batch.add(*token, (start + n) as i32, &[at as i32], last).is_err() {
                    break;
                }
            }
            room -= count;
            let logits = whole.then(|| self.batch.n_tokens() - 1);
            let guesses = guesses && whole && self.cache.rewinds();
            let guess = if guesses { self.guess(at, room) } else { Guess::default() };
            for (n, token) in guess.tokens.iter().enumerate() {
                if self.batch.add(*token, (start + count + n) as i32, &[at as i32], true).is_err() {
                    break;
                }
            }
            room -= guess.tokens.len();
            parts.push(Part { at, count, logits, guess });
        }
        match self.cache.context.decode(&mut self.batch) {
            Ok(()) => {
                for part in parts {
                    self.evaluated(part);
                }
            }
            Err(DecodeError::NoKvCacheSlot) if parts.iter().any(|part| !part.guess.tokens.is_empty()) => {
                self.step(false);
            }
            Err(DecodeError::NoKvCacheSlot) => self.make_room(&parts),
            Err(why) => {
                for part in parts {
                    let why = format!("the engine cannot evaluate the prompt: {why}");
                    self.fail(part.at, Error::Refused(why));
                }
            }
        }
    }

    /// Guesses the tokens that follow [`Answer::todo`], within `room`, the window and the answer's
    /// token limit.
    fn guess(&mut self, at: usize, room: usize) -> Guess {
        let Some(answer) = &mut self.slots[at].answer else { return Guess::default() };
        let mut tokens = self.cache.sequence(at).tokens().to_vec();
        tokens.extend(&answer.todo);
        let in_window = self.window.saturating_sub(tokens.len() + 1);
        let left = usize::try_from(answer.max_tokens - answer.generated).unwrap_or(usize::MAX);
        let limit = room.min(in_window).min(left.saturating_sub(1));
        // If the tokenizer is not exact, it may tokenize part of the text differently than the
        // whole, so the guess would be wrong.
        let constraint = answer.constraint.as_mut().filter(|_| self.cache.exact());
        let forced = constraint.map(Constraint::forced).unwrap_or_default();
        if !forced.is_empty() {
            let mut tokens = self.cache.tokenize_bytes(&forced, false);
            tokens.truncate(limit);
            return Guess { tokens, forced: true };
        }
        Guess { tokens: answer.draft.guess(&tokens, limit).to_vec(), forced: false }
    }

    /// Records the evaluated tokens of an answer. If the last of them has logits, samples the
    /// tokens that follow.
    fn evaluated(&mut self, part: Part) {
        let Part { at, count, logits, guess } = part;
        let Some(answer) = &mut self.slots[at].answer else { return };
        let done: Vec<LlamaToken> = answer.todo.drain(..count).collect();
        self.cache.extend(at, &done);
        let (sequence, Some(answer)) = (self.cache.sequence(at), &mut self.slots[at].answer) else { return };
        if answer.boundary == Some(sequence.len()) {
            answer.boundary = None;
            if let Some(saved) = &self.saved {
                let stable = &answer.prompt.text[..answer.prompt.stable];
                self.cache.save(saved, at, stable);
            }
        }
        let Some(logits) = logits else {
            let processed = sequence.len() as u64;
            answer.send(Delta::Progress { processed, total: answer.prompt_tokens as u64 });
            return;
        };
        answer.first.get_or_insert_with(Instant::now);
        let mut right = 0;
        for index in logits.. {
            let logits = self.cache.context.get_logits_ith(index);
            let tokenize = |text: &[u8]| self.cache.tokenize_bytes(text, false);
            let constraint = answer.constraint.as_mut();
            let chosen = constraint.map(|c| c.choose(&mut answer.sampler, logits, tokenize)).transpose();
            let choice = chosen.unwrap_or_else(|why| {
                leave_free(&answer.unconstrained, &why);
                answer.constraint = None;
                self.grammars.forget();
                None
            });
            let choice = choice.unwrap_or_else(|| answer.sampler.choose(logits));
            let guessed = guess.tokens.get(right) == Some(&choice.token);
            answer.sampled.push_back(choice);
            if !guessed || answer.is_complete() {
                break;
            }
            right += 1;
        }
        if !guess.forced {
            answer.draft.learn(right, guess.tokens.len());
        }
        self.cache.extend(at, &guess.tokens[..right]);
        if right < guess.tokens.len() {
            let kept = self.cache.sequence(at).len();
            self.cache.roll_back(at, kept);
        }
        self.hand_over(at);
    }

    /// Gives the reader the sampled tokens that it asked for.
    fn hand_over(&mut self, at: usize) {
        while let Some(answer) = &mut self.slots[at].answer
            && answer.wanted
            && let Some(choice) = answer.sampled.pop_front()
        {
            self.sampled(at, choice);
        }
    }

    /// Adds a sampled token to the answer.
    fn sampled(&mut self, at: usize, choice: Choice) {
        let Some(answer) = &mut self.slots[at].answer else { return };
        let vocab = self.cache.vocab();
        if vocab.is_eog(choice.token) {
            return self.end(at, EndReason::Stop);
        }
        answer.generated += 1;
        let piece = vocab.token_to_piece(choice.token, false, None);
        let mut wanted = true;
        let text = answer.output.push(&piece);
        if !text.is_empty() {
            wanted = false;
            let usage = answer.usage();
            answer.send(Delta::Usage(usage));
        }
        if answer.alternatives
            && let [Delta::Text(_)] = text.as_slice()
        {
            let spell = |token| String::from_utf8(vocab.token_to_piece(token, false, None)).ok();
            let others: Vec<_> = choice
                .others
                .iter()
                .filter(|(token, _)| !vocab.is_control(*token) && !vocab.is_eog(*token))
                .filter_map(|(token, logprob)| {
                    Some((spell(*token).filter(|text| !text.is_empty())?, *logprob))
                })
                .collect();
            if let Ok(chosen) = String::from_utf8(piece)
                && !others.is_empty()
            {
                answer.send(Delta::Doubt { chosen, others });
            }
        }
        for delta in text {
            answer.send(delta);
        }
        answer.wanted = wanted;
        if answer.sampled.is_empty() {
            if answer.is_complete() {
                return self.end(at, EndReason::Stop);
            }
            answer.todo.push(choice.token);
        }
        let full = answer.prompt_tokens as u64 + answer.generated >= self.window as u64;
        if full || answer.generated >= answer.max_tokens {
            self.end(at, EndReason::Length);
        }
    }

    fn end(&mut self, at: usize, reason: EndReason) {
        let Some(mut answer) = self.slots[at].answer.take() else { return };
        for delta in answer.output.finish() {
            answer.send(delta);
        }
        let usage = answer.usage();
        answer.send(Delta::End(End { reason, usage }));
    }

    fn fail(&mut self, at: usize, error: Error) {
        if let Some(answer) = self.slots[at].answer.take() {
            let _ = answer.deltas.send(Err(error));
        }
        self.cache.roll_back(at, 0);
    }

    /// Frees the cells of the least recently used idle sequence. If none is idle, fails the newest
    /// answer in the batch and frees its cells. The request for that answer must be retried.
    fn make_room(&mut self, parts: &[Part]) {
        let idle = (0..self.slots.len())
            .filter(|at| self.slots[*at].answer.is_none() && self.cache.sequence(*at).len() > 0)
            .min_by_key(|at| self.slots[*at].used);
        if let Some(at) = idle {
            self.cache.roll_back(at, 0);
            return;
        }
        if let Some(Part { at, .. }) = parts.iter().max_by_key(|part| self.slots[part.at].used) {
            let message = String::from("the KV cache is full: too many answers in progress at once");
            self.fail(*at, Error::Busy { message, retry_after: Some(1) });
        }
    }
}

/// Records that a constraint cannot be enforced.
fn leave_free(unconstrained: &AtomicBool, why: &str) {
    tracing::warn!(why, "the answer is not constrained");
    unconstrained.store(true, Ordering::Relaxed);
}

impl Answer {
    /// Returns whether there are tokens to evaluate, and either the reader is waiting or the prompt
    /// has not been evaluated yet.
    fn ready(&self) -> bool {
        !self.todo.is_empty() && (self.wanted || self.first.is_none())
    }

    /// Returns whether the answer is constrained and its value is complete.
    fn is_complete(&self) -> bool {
        self.constraint.as_ref().is_some_and(Constraint::is_complete)
    }

    fn send(&self, delta: Delta) {
        // If the reader is gone, it has canceled the answer.
        let _ = self.deltas.send(Ok(delta));
    }

    fn usage(&self) -> Usage {
        let now = Instant::now();
        let first = self.first.unwrap_or(now);
        let ms = |from: Instant, to: Instant| Some(to.duration_since(from).as_secs_f64() * 1e3);
        Usage {
            prompt_tokens: Some(self.prompt_tokens as u64),
            cached_tokens: Some(self.cached as u64),
            generated_tokens: Some(self.generated),
            prompt_ms: ms(self.started, first),
            generation_ms: ms(first, now),
            load_ms: None,
        }
    }
}
