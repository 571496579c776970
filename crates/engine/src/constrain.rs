//! Constrained decoding: makes the answer a single JSON value that conforms to a given schema.
//!
//! Each token is first sampled without the constraint and then checked against the schema. An
//! answer that conforms to the schema anyway is therefore unchanged, and the check costs next to
//! nothing. If the schema does not allow the token, another token replaces it. If there is only one
//! possible continuation, the replacement is its first token. Otherwise, the sampler chooses the
//! replacement from all allowed tokens. Text that the schema forces is treated like guessed text
//! (see [`crate::draft`]), so that it is evaluated in one batch.
//!
//! As in the prompts, the JSON has one space after each colon and comma, and no other whitespace
//! outside its strings.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::vocab::LlamaVocab;
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{JsonCompileOptions, Matcher, ParserFactory, panic_utils};
use serde_json::Value;

use crate::sample::{Choice, Sampler};

/// Maximum number of levels in a schema. Compiling a schema takes at least one stack frame per
/// level.
const LEVELS: usize = 64;
/// Maximum number of values in a schema. The schema for all tools combined has a few hundred.
const VALUES: usize = 20_000;
/// Maximum length, in bytes, of a string in a schema, such as a pattern.
const TEXT: usize = 20_000;

/// Compiles schemas for the vocabulary of one model.
#[derive(Default)]
pub(crate) struct Grammars {
    /// Created when a constrained answer is first requested, because creating it takes a good part
    /// of a second.
    factory: Option<ParserFactory>,
    /// The last schema and its matcher. All requests in a run have the same schema.
    last: Option<(Arc<Value>, Matcher)>,
}

impl Grammars {
    /// Compiles a schema.
    ///
    /// # Errors
    /// If the library cannot handle the vocabulary, or if the schema is invalid, cannot be
    /// compiled, or is too large.
    pub(crate) fn constraint(
        &mut self,
        schema: &Arc<Value>,
        vocab: LlamaVocab<'_>,
    ) -> Result<Constraint, String> {
        if let Some((last, matcher)) = &self.last
            && last == schema
        {
            return Ok(Constraint { matcher: matcher.clone() });
        }
        check_size(schema)?;
        let from = Instant::now();
        let factory = match self.factory.take() {
            Some(factory) => factory,
            None => factory(vocab)?,
        };
        let factory = self.factory.insert(factory);
        let made = from.elapsed();
        let parser = AssertUnwindSafe(|| factory.create_parser(grammar(schema)));
        let matcher = Matcher::new(panic_utils::catch_unwind(parser));
        if let Some(why) = matcher.get_error() {
            return Err(first_line(&why));
        }
        tracing::debug!(vocabulary = ?made, all = ?from.elapsed(), "schema compiled");
        self.last = Some((Arc::clone(schema), matcher.clone()));
        Ok(Constraint { matcher })
    }

    /// Forgets the last schema, so that it is recompiled the next time it is used. Matchers for the
    /// same schema share state, which is unusable after a failure.
    pub(crate) fn forget(&mut self) {
        self.last = None;
    }
}

fn grammar(schema: &Value) -> TopLevelGrammar {
    let mut schema = schema.clone();
    let options = JsonCompileOptions {
        item_separator: String::from(", "),
        key_separator: String::from(": "),
        whitespace_flexible: false,
        ..JsonCompileOptions::default()
    };
    if schema.is_object() {
        options.apply_to(&mut schema);
    }
    TopLevelGrammar::from_json_schema(schema)
}

/// Creates a parser factory. This reads the entire vocabulary.
fn factory(vocab: LlamaVocab<'_>) -> Result<ParserFactory, String> {
    // The library panics on some vocabularies, such as one with a kilobyte-long token, or one
    // without a token that ends an answer.
    let factory = panic_utils::catch_unwind(AssertUnwindSafe(|| {
        let tokens = || vocab.tokens();
        let words: Vec<Vec<u8>> = tokens().map(|token| vocab.token_to_piece(token, false, None)).collect();
        let mut ends: Vec<u32> = tokens().filter(|token| vocab.is_eog(*token)).map(id).collect();
        if ends.is_empty() {
            ends.push(id(vocab.eos()));
        }
        let info = TokRxInfo::new(words.len() as u32, ends[0]);
        let trie = TokTrie::from(&info, &words).with_eos_tokens(&ends);
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&environment)?;
        factory.quiet();
        factory.limits_mut().verbose_errors = false;
        Ok(factory)
    }));
    factory.map_err(|why| first_line(&why.to_string()))
}

fn id(token: LlamaToken) -> u32 {
    token.0.cast_unsigned()
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(300).collect()
}

/// Rejects a schema that would take too much time, memory or recursion to compile.
fn check_size(schema: &Value) -> Result<(), String> {
    let mut left = vec![(schema, 1)];
    let mut values = 0;
    while let Some((value, level)) = left.pop() {
        values += 1;
        if values > VALUES {
            return Err(format!("it has more than {VALUES} values"));
        }
        if level > LEVELS {
            return Err(format!("it has more than {LEVELS} levels"));
        }
        match value {
            Value::String(text) if text.len() > TEXT => {
                return Err(format!("it has a string of more than {TEXT} bytes"));
            }
            Value::Array(items) => left.extend(items.iter().map(|item| (item, level + 1))),
            Value::Object(fields) => left.extend(fields.values().map(|field| (field, level + 1))),
            _ => {}
        }
    }
    Ok(())
}

/// The state of one constrained answer, which determines which tokens may follow.
pub(crate) struct Constraint {
    matcher: Matcher,
}

impl Constraint {
    /// Chooses the next token the way the sampler does, but only from the allowed tokens.
    /// `tokenize` splits the text that must follow into tokens.
    ///
    /// # Errors
    /// If the library fails, in which case the rest of the answer cannot be constrained.
    pub(crate) fn choose(
        &mut self,
        sampler: &mut Sampler,
        logits: &[f32],
        tokenize: impl Fn(&[u8]) -> Vec<LlamaToken>,
    ) -> Result<Choice, String> {
        let choice = sampler.choose(logits);
        if self.takes(choice.token)? { Ok(choice) } else { self.allowed(sampler, logits, tokenize) }
    }

    /// Chooses an allowed token.
    fn allowed(
        &mut self,
        sampler: &mut Sampler,
        logits: &[f32],
        tokenize: impl Fn(&[u8]) -> Vec<LlamaToken>,
    ) -> Result<Choice, String> {
        // The schema may not allow this token either, because a tokenizer may add to the text.
        // SentencePiece, for example, adds a space.
        if let Some(token) = tokenize(&self.forced()).first()
            && self.takes(*token)?
        {
            return Ok(Choice { token: *token, others: Vec::new() });
        }
        let mask = self.matcher.compute_mask_or_eos().map_err(|why| first_line(&why.to_string()))?;
        let logits = (0..).zip(logits);
        let masked = logits.map(|(id, logit)| if mask.is_allowed(id) { *logit } else { f32::NEG_INFINITY });
        let choice = sampler.choose(&masked.collect::<Vec<_>>());
        // A complete value can be followed only by the end of the answer, and the matcher has
        // already stopped.
        if !self.is_complete() {
            self.matcher.consume_token(id(choice.token)).map_err(|why| first_line(&why.to_string()))?;
        }
        Ok(choice)
    }

    /// Adds a token to the answer if it is allowed.
    fn takes(&mut self, token: LlamaToken) -> Result<bool, String> {
        let taken = self.matcher.try_consume_tokens(&[id(token)]);
        taken.map(|tokens| tokens == 1).map_err(|why| first_line(&why.to_string()))
    }

    /// Returns whether the answer is complete.
    pub(crate) fn is_complete(&self) -> bool {
        self.matcher.is_stopped()
    }

    /// Returns the text that must come next; empty if there is more than one possibility.
    pub(crate) fn forced(&mut self) -> Vec<u8> {
        self.matcher.compute_ff_bytes()
    }
}
