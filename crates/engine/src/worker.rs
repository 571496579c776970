//! The thread that owns the model: it evaluates prompts and generates tokens for all answers at
//! once.
//!
//! Each answer has a sequence of the KV cache. A new conversation starts from the sequence that
//! shares most of its text: the rest of that sequence is rolled back, and only the new text is
//! evaluated. If the sequence is in use, its cells are shared, not copied. All answers advance in
//! one batch.
//!
//! An answer advances by one token each time its reader waits for more. So a reader that stops has
//! seen the last token that was sampled, and none was generated in vain.

use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use llama_cpp_2::DecodeError;
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::vocab::VocabType;
use models::{Delta, End, EndReason, Error, Request, Usage};
use tokio::sync::{mpsc, oneshot};

use crate::output::Output;
use crate::sample::Sampler;
use crate::saved::Saved;
use crate::sequence::Sequence;
use crate::template::Prompt;

/// The most tokens evaluated at once. A reader that stops, and the other answers, wait for one
/// batch at most: about a second of prompt on two cores.
pub(crate) const BATCH: usize = 128;
/// Answers at a time. More are queued.
pub(crate) const SEQUENCES: usize = 4;
/// A stable prefix shorter than this many bytes is evaluated faster than it is loaded.
const LEAST_SAVED: usize = 1024;
/// How long an answer may take to read a token before the others go on without it.
const PATIENCE: Duration = Duration::from_millis(2);
/// A conversation takes over an idle sequence if it shares at least this part of it. Otherwise the
/// idle one is kept for its own conversation, and the shared part is used by both.
const TAKEN_OVER: f32 = 0.5;

/// What the thread is asked to do.
pub(crate) enum Command {
    /// Start an answer.
    Start(Box<Job>),
    /// The reader of this answer waits for more.
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
    /// Receives whether the answer can start.
    pub(crate) started: oneshot::Sender<Result<(), Error>>,
    pub(crate) deltas: mpsc::UnboundedSender<Result<Delta, Error>>,
}

/// An answer in the making.
struct Answer {
    id: u64,
    /// Tokens still to be evaluated, in order: the rest of the prompt, or the last sampled token.
    todo: Vec<LlamaToken>,
    /// How many tokens the sequence has when the stable prefix is complete, if it is to be saved.
    boundary: Option<usize>,
    prompt: Prompt,
    prompt_tokens: usize,
    cached: usize,
    generated: u64,
    max_tokens: u64,
    sampler: Sampler,
    alternatives: bool,
    output: Output,
    /// Whether the reader waits.
    wanted: bool,
    started: Instant,
    first: Option<Instant>,
    deltas: mpsc::UnboundedSender<Result<Delta, Error>>,
}

#[derive(Default)]
struct Slot {
    sequence: Sequence,
    answer: Option<Answer>,
    /// When it was last used, as a count of answers.
    used: u64,
}

/// The state of the thread.
pub(crate) struct Worker<'m> {
    model: &'m LlamaModel,
    context: LlamaContext<'m>,
    batch: LlamaBatch<'static>,
    window: usize,
    saved: Option<Saved>,
    slots: Vec<Slot>,
    queue: std::collections::VecDeque<Job>,
    answers: u64,
    /// Whether text may be compared and tokenized in parts.
    exact: bool,
}

impl<'m> Worker<'m> {
    pub(crate) fn new(model: &'m LlamaModel, context: LlamaContext<'m>, saved: Option<Saved>) -> Self {
        let window = context.n_ctx() as usize;
        Self {
            model,
            context,
            batch: LlamaBatch::new(BATCH, 1),
            window,
            saved,
            slots: (0..SEQUENCES).map(|_| Slot::default()).collect(),
            queue: std::collections::VecDeque::new(),
            answers: 0,
            // SentencePiece adds a space at the start of each text that it tokenizes.
            exact: model.vocab().vocab_type() == VocabType::BPE,
        }
    }

    /// Works until it is told to stop.
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
            self.step();
        }
    }

    fn ready(&self) -> bool {
        self.slots.iter().flat_map(|slot| &slot.answer).any(Answer::ready)
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Start(job) => self.queue.push_back(*job),
            Command::Next(id) => {
                let answers = self.slots.iter_mut().flat_map(|slot| &mut slot.answer);
                answers.filter(|answer| answer.id == id).for_each(|answer| answer.wanted = true);
            }
            Command::Stop => {}
            Command::Cancel(id) => {
                self.queue.retain(|job| job.id != id);
                let slot =
                    self.slots.iter_mut().find(|slot| slot.answer.as_ref().is_some_and(|a| a.id == id));
                if let Some(slot) = slot {
                    slot.answer = None;
                }
            }
        }
    }

    /// Starts the answers that wait for a free sequence.
    fn start_queued(&mut self) {
        while !self.queue.is_empty()
            && let Some(at) = self.oldest_free()
            && let Some(job) = self.queue.pop_front()
        {
            self.start(job, at);
        }
    }

    /// Starts an answer. At least the sequence `free` is free.
    fn start(&mut self, job: Job, free: usize) {
        let mut at = self.choose(&job.prompt, free);
        let Job { id, prompt, request, started, deltas } = job;
        self.answers += 1;
        let (mut kept, mut todo) = self.split(at, &prompt.text);
        let stable = &prompt.text[..prompt.stable];
        let saved = self.saved.clone().filter(|_| self.exact && stable.len() >= LEAST_SAVED);
        let mut boundary = None;
        if let Some(saved) = saved
            && self.slots[at].sequence.bytes(kept) < stable.len()
        {
            self.roll_back(free, 0);
            if let Some(tokens) = saved.load(&mut self.context, free as i32, stable) {
                at = free;
                self.extend(at, &tokens);
                (kept, todo) = self.split(at, &prompt.text);
            } else {
                let (head, tail) = prompt.text.split_at(prompt.stable);
                (kept, todo) = self.split(at, head);
                boundary = Some(kept + todo.len());
                todo.extend(self.tokenize(tail, false));
            }
        }
        // The last token has to be evaluated, since the next one depends on its logits.
        if todo.is_empty() && kept > 0 {
            kept -= 1;
            todo.extend(self.slots[at].sequence.tokens().get(kept));
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
        if !self.roll_back(at, kept) {
            // Models with a recurrent state cannot go back: start over.
            self.roll_back(at, 0);
            (kept, boundary) = (0, None);
            todo = self.tokenize(&prompt.text, true);
        }
        if started.send(Ok(())).is_err() {
            return;
        }
        let slot = &mut self.slots[at];
        slot.used = self.answers;
        slot.answer = Some(Answer {
            id,
            todo,
            boundary,
            prompt_tokens,
            cached: kept,
            generated: 0,
            max_tokens: u64::from(request.max_tokens),
            sampler: Sampler::new(request.temperature, request.seed, request.alternatives),
            alternatives: request.alternatives > 0,
            output: Output::new(prompt.thinking, request.stop),
            prompt,
            wanted: true,
            started: Instant::now(),
            first: None,
            deltas,
        });
    }

    /// The free sequence to answer `prompt` in, with the longest common prefix in it. `oldest` is
    /// the one that was free for the longest time.
    fn choose(&mut self, prompt: &Prompt, oldest: usize) -> usize {
        let shared =
            |slot: &Slot| if self.exact { slot.sequence.matching(prompt.text.as_bytes()) } else { 0 };
        let common = self.slots.iter().map(shared).enumerate().max_by_key(|(_, common)| *common);
        let Some((best, common)) = common.filter(|(_, common)| *common > 0) else { return oldest };
        let idle = self.slots[best].answer.is_none();
        let worth = common as f32 >= self.slots[best].sequence.len() as f32 * TAKEN_OVER;
        if best == oldest || (idle && worth) {
            return best;
        }
        if self.roll_back(oldest, 0) {
            let (from, to) = (best as i32, oldest as i32);
            if self.context.kv_cache_seq_cp(from, to, Some(0), u32::try_from(common).ok()).is_ok() {
                self.slots[oldest].sequence = self.slots[best].sequence.prefix(common);
            }
        }
        oldest
    }

    fn oldest_free(&self) -> Option<usize> {
        let free = (0..self.slots.len()).filter(|at| self.slots[*at].answer.is_none());
        free.min_by_key(|at| (self.slots[*at].sequence.len() > 0, self.slots[*at].used))
    }

    /// How many tokens of a sequence spell the start of `text`, and the tokens of the rest.
    fn split(&self, at: usize, text: &str) -> (usize, Vec<LlamaToken>) {
        let sequence = &self.slots[at].sequence;
        if self.exact {
            let text = text.as_bytes();
            let mut kept = sequence.matching(text);
            loop {
                let end = sequence.bytes(kept);
                // The matched bytes may end inside a character of the new text.
                let rest = self.tokenize_bytes(text.get(end..).unwrap_or_default(), kept == 0);
                let appended = kept == sequence.len()
                    || rest.first().is_none_or(|token| self.model.vocab().is_control(*token));
                if kept == 0 || appended || !joined(text, end) {
                    return (kept, rest);
                }
                // The tokenizer would not end a token here.
                kept -= 1;
            }
        }
        let tokens = self.tokenize(text, true);
        let kept = sequence.tokens().iter().zip(&tokens).take_while(|(a, b)| a == b).count();
        (kept, tokens[kept..].to_vec())
    }

    fn tokenize(&self, text: &str, start: bool) -> Vec<LlamaToken> {
        self.tokenize_bytes(text.as_bytes(), start)
    }

    fn tokenize_bytes(&self, text: &[u8], start: bool) -> Vec<LlamaToken> {
        if text.is_empty() {
            return Vec::new();
        }
        let vocab = self.model.vocab();
        // Most templates write the first token themselves.
        let bos = vocab.bos();
        let first = start && vocab.should_add_bos() && {
            let piece = vocab.token_to_piece(bos, true, None);
            piece.is_empty() || !text.starts_with(&piece)
        };
        let mut tokens = Vec::new();
        if first {
            tokens.push(bos);
        }
        tokens.extend(vocab.tokenize(text, false, true));
        tokens
    }

    /// Appends evaluated tokens to what is known of a sequence.
    fn extend(&mut self, at: usize, tokens: &[LlamaToken]) {
        let vocab = self.model.vocab();
        let sequence = &mut self.slots[at].sequence;
        for token in tokens {
            // The token that only marks the start spells nothing of the text.
            let marks_start = sequence.len() == 0 && *token == vocab.bos() && vocab.should_add_bos();
            let piece = if marks_start { Vec::new() } else { vocab.token_to_piece(*token, true, None) };
            sequence.push(*token, &piece);
        }
    }

    /// Removes all but the first `kept` tokens of a sequence. Returns whether the model can.
    fn roll_back(&mut self, at: usize, kept: usize) -> bool {
        let from = u32::try_from(kept).ok();
        let removed = self.context.kv_cache_seq_rm(at as i32, from, None).is_ok();
        if removed {
            self.slots[at].sequence.truncate(kept);
        }
        removed
    }

    /// Evaluates one batch and samples the tokens that follow it.
    fn step(&mut self) {
        self.batch.clear();
        // Of each sequence: how many of its tokens are in the batch, and the index of its logits.
        let mut parts: Vec<(usize, usize, Option<i32>)> = Vec::new();
        let mut room = BATCH;
        // Answers that generate come first: a long prompt must not hold them up.
        let mut order: Vec<usize> = (0..self.slots.len()).collect();
        order.sort_by_key(|at| self.slots[*at].answer.as_ref().map_or(usize::MAX, |a| a.todo.len()));
        for at in order {
            let Slot { sequence, answer: Some(answer), .. } = &self.slots[at] else { continue };
            if !answer.ready() || room == 0 {
                continue;
            }
            let start = sequence.len();
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
            parts.push((at, count, whole.then(|| self.batch.n_tokens() - 1)));
        }
        match self.context.decode(&mut self.batch) {
            Ok(()) => {
                for (at, count, logits) in parts {
                    self.evaluated(at, count, logits);
                }
            }
            Err(DecodeError::NoKvCacheSlot) => self.make_room(&parts),
            Err(why) => {
                for (at, ..) in parts {
                    self.fail(at, Error::Refused(format!("the engine cannot evaluate the prompt: {why}")));
                }
            }
        }
    }

    /// Notes that the first `count` tokens to do were evaluated, and goes on from there.
    fn evaluated(&mut self, at: usize, count: usize, logits: Option<i32>) {
        let Some(answer) = &mut self.slots[at].answer else { return };
        let done: Vec<LlamaToken> = answer.todo.drain(..count).collect();
        self.extend(at, &done);
        let Slot { sequence, answer: Some(answer), .. } = &mut self.slots[at] else { return };
        if answer.boundary == Some(sequence.len()) {
            answer.boundary = None;
            if let Some(saved) = &self.saved {
                let stable = &answer.prompt.text[..answer.prompt.stable];
                saved.save(&self.context, at as i32, stable, sequence.tokens());
            }
        }
        let Some(logits) = logits else {
            let processed = sequence.len() as u64;
            answer.send(Delta::Progress { processed, total: answer.prompt_tokens as u64 });
            return;
        };
        answer.first.get_or_insert_with(Instant::now);
        let choice = answer.sampler.choose(self.context.get_logits_ith(logits));
        let vocab = self.model.vocab();
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
        answer.todo.push(choice.token);
        let full = sequence.len() + 1 >= self.window;
        if answer.output.stopped() {
            self.end(at, EndReason::Stop);
        } else if full || answer.generated >= answer.max_tokens {
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
        self.roll_back(at, 0);
    }

    /// Frees cells of the cache: first those of idle sequences, oldest first, then those of the
    /// youngest answer, which has to be sent again.
    fn make_room(&mut self, parts: &[(usize, usize, Option<i32>)]) {
        let idle = (0..self.slots.len())
            .filter(|at| self.slots[*at].answer.is_none() && self.slots[*at].sequence.len() > 0)
            .min_by_key(|at| self.slots[*at].used);
        if let Some(at) = idle {
            self.roll_back(at, 0);
            return;
        }
        if let Some((at, ..)) = parts.iter().max_by_key(|(at, ..)| self.slots[*at].used) {
            let message = String::from("the context windows of the answers in progress fill the memory");
            self.fail(*at, Error::Unavailable { message, retry_after: Some(1) });
        }
    }
}

/// Whether a token may reach across this place: inside a word, a number, a run of spaces or of
/// punctuation, or between a space and its word.
fn joined(text: &[u8], at: usize) -> bool {
    let class = |byte: u8| match byte {
        b'0'..=b'9' => 0,
        b' ' | b'\t' | b'\n' | b'\r' => 1,
        b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => 2,
        _ => 3,
    };
    let Some((Some(before), after)) = text.get(..at).map(|before| before.last()).zip(text.get(at)) else {
        return false;
    };
    class(*before) == class(*after) || class(*before) == 1 || (class(*before), class(*after)) == (3, 1)
}

impl Answer {
    /// Whether there is something to evaluate that the reader waits for.
    fn ready(&self) -> bool {
        !self.todo.is_empty() && (self.wanted || self.first.is_none())
    }

    fn send(&self, delta: Delta) {
        // A reader that is gone cancels the answer.
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
