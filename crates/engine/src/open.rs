//! Loads a model file: checks the free memory, chooses the window, and starts the engine's thread.

use std::ffi::OsString;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};

use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::{LogOptions, send_logs_to_tracing};
use model_files::gguf;
use models::profile::{About, Profile, Profiles};
use models::{Error, Identity, Think};
use tokio::sync::oneshot;

use crate::cache::{Cache, SEQUENCES};
use crate::cpu;
use crate::room::{self, Wanted};
use crate::saved::Saved;
use crate::template::Template;
use crate::trial;
use crate::worker::{BATCH, Command, Worker};
use crate::{Embedded, Loaded, Thread, gone};

/// The last opened model, kept because `agent batch` reopens its model for each task.
static OPEN: tokio::sync::Mutex<Option<(Options, Embedded)>> = tokio::sync::Mutex::const_new(None);

/// Releases the last opened model. If it has no other users, its thread ends and its memory is
/// freed. Call this before the program exits.
pub fn close() {
    // If the lock is taken, another thread is opening a model, so the program is not about to exit.
    if let Ok(mut open) = OPEN.try_lock() {
        *open = None;
    }
}

/// The engine's name in [`Identity::server`].
const SERVER: &str = "embedded";

/// How to open a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The GGUF file.
    pub file: PathBuf,
    /// The model's name, as the user knows it.
    pub name: String,
    /// The context window, in tokens. If `None`, it is derived from the profile and the free
    /// memory.
    pub window: Option<u64>,
    /// The number of layers to run on a GPU, if the engine was built for one.
    pub gpu_layers: u32,
    /// Whether the model reasons before it answers, if its template has a thinking switch.
    pub think: Think,
    /// The profiles of model families. They supply the window and the thinking setting if the
    /// fields above do not.
    pub profiles: Profiles,
    /// The cache folder, which holds evaluated prefixes and the list of files that passed a trial.
    /// If `None`, nothing is cached.
    pub cache: Option<PathBuf>,
    /// The command that calls [`crate::load_for_trial`]. The file is appended as the last argument.
    /// If the command is empty, the file is loaded without a trial.
    pub trial: Vec<OsString>,
}

/// What the thread reports once the model is loaded.
struct Facts {
    identity: Identity,
    template: Template,
    warnings: Vec<String>,
}

impl Embedded {
    /// Loads a model file, which can take anywhere from a fraction of a second to several minutes.
    /// If the file is already open with the same options, the loaded model is shared.
    ///
    /// # Errors
    /// [`Error::Refused`] if the file cannot be loaded or there is too little memory. The message
    /// says what to do.
    pub async fn open(options: Options) -> Result<Self, Error> {
        // Hold the lock until the model is loaded, because llama.cpp cannot load two models at
        // once.
        let mut open = OPEN.lock().await;
        if let Some((same, model)) = open.as_ref()
            && *same == options
        {
            return Ok(Self::of(Arc::clone(&model.loaded)));
        }
        // Release the old model first, because both might not fit in memory.
        *open = None;
        let model = Self::load(options.clone()).await?;
        *open = Some((options, model.clone()));
        Ok(model)
    }

    async fn load(options: Options) -> Result<Self, Error> {
        let (commands, inbox) = mpsc::channel();
        let (report, reported) = oneshot::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name(String::from("engine"))
            .spawn(move || work(&options, &stopped, report, &inbox))
            .map_err(|why| Error::Refused(format!("cannot start the engine's thread: {why}")))?;
        // If this future is dropped, the thread stops loading.
        let worker = Thread { commands, stop, handle: Some(thread) };
        let Facts { identity, template, warnings } = reported.await.map_err(|_| gone())??;
        Ok(Self::of(Arc::new(Loaded { identity, template, warnings, worker, next: AtomicU64::new(0) })))
    }
}

fn work(
    options: &Options,
    stop: &Arc<AtomicBool>,
    report: oneshot::Sender<Result<Facts, Error>>,
    inbox: &mpsc::Receiver<Command>,
) {
    let plan = match Plan::new(options).and_then(|plan| trial::run(options, stop).map(|()| plan)) {
        Ok(plan) => plan,
        Err(why) => return drop(report.send(Err(why))),
    };
    let model = match load(options, stop) {
        Ok(model) => model,
        Err(why) => return drop(report.send(Err(why))),
    };
    let (worker, facts) = match start(options, plan, &model) {
        Ok(started) => started,
        Err(why) => return drop(report.send(Err(why))),
    };
    if report.send(Ok(facts)).is_ok() {
        worker.run(inbox);
    }
}

/// Loads a model, opens its context and evaluates one token.
pub(crate) fn trial(options: &Options) -> Result<(), Error> {
    let plan = Plan::new(options)?;
    let model = load(options, &Arc::default())?;
    let (mut worker, _) = start(options, plan, &model)?;
    worker.evaluate_one()
}

/// What is known before the model is loaded. llama.cpp aborts the process on most broken headers,
/// so the header is checked first.
struct Plan {
    header: gguf::Header,
    parameters_b: f32,
    profile: Profile,
    window: u64,
    warning: Option<String>,
}

impl Plan {
    fn new(options: &Options) -> Result<Self, Error> {
        let refused = |why: String| Error::Refused(why);
        cpu::check().map_err(refused)?;
        let header = gguf::read(&options.file).map_err(|why| refused(why.to_string()))?;
        if !header.known {
            return Err(refused(format!(
                "{}: the engine does not know the architecture {}",
                options.file.display(),
                header.architecture,
            )));
        }
        let parameters_b = header.parameters as f32 / 1e9;
        let about = About { name: &options.name, parameters_b: Some(parameters_b), server: SERVER };
        let profile = options.profiles.resolve(about);
        let wanted = Wanted {
            asked: options.window,
            usual: profile.window().unwrap_or(room::LEAST_WINDOW),
            trained: header.trained_window,
            per_token: header.kv_bytes_per_token,
            model: header.tensor_bytes,
            free: room::free_memory(),
        };
        let (window, warning) =
            room::window(wanted).map_err(|why| refused(format!("{}: {why}", options.name)))?;
        Ok(Self { header, parameters_b, profile, window, warning })
    }
}

/// Returns llama.cpp's state for this process, initializing it on first use.
fn backend() -> Result<&'static LlamaBackend, Error> {
    static BACKEND: OnceLock<LlamaBackend> = OnceLock::new();
    static FIRST: Mutex<()> = Mutex::new(());
    let _one = FIRST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(backend) = BACKEND.get() {
        return Ok(backend);
    }
    send_logs_to_tracing(LogOptions::default());
    let backend =
        LlamaBackend::init().map_err(|why| Error::Refused(format!("cannot start the engine: {why}")))?;
    Ok(BACKEND.get_or_init(|| backend))
}

fn load(options: &Options, stop: &Arc<AtomicBool>) -> Result<LlamaModel, Error> {
    let file = options.file.display();
    let stop = Arc::clone(stop);
    let params = LlamaModelParams::default()
        .with_n_gpu_layers(options.gpu_layers)
        .with_progress_callback(move |_| !stop.load(Ordering::Relaxed));
    LlamaModel::load_from_file(backend()?, &options.file, &params).map_err(|why| {
        Error::Refused(format!(
            "cannot load the model file {file}: {why}; set AGENT_LOG=debug to see what llama.cpp says"
        ))
    })
}

/// Returns how many answers the machine can generate at a time. Concurrent answers share the cost
/// of reading the model from memory, but evaluating a single prompt already uses all cores.
fn parallel_answers(gpu: bool, threads: usize) -> u16 {
    let answers = if gpu { SEQUENCES } else { (threads / 2).clamp(1, SEQUENCES) };
    answers as u16
}

fn start<'m>(options: &Options, plan: Plan, model: &'m LlamaModel) -> Result<(Worker<'m>, Facts), Error> {
    let Plan { header, parameters_b, profile, window, warning } = plan;
    let threads = i32::try_from(room::threads()).unwrap_or(1);
    let params = LlamaContextParams::default()
        .with_n_ctx(u32::try_from(window).ok().and_then(NonZeroU32::new))
        .with_n_batch(BATCH as u32)
        .with_n_ubatch(BATCH as u32)
        .with_n_seq_max(SEQUENCES as u32)
        .with_kv_unified(true)
        .with_n_threads(threads)
        .with_n_threads_batch(threads);
    let context = model.new_context(backend()?, params).map_err(|why| {
        Error::Refused(format!(
            "{}: cannot allocate a window of {window} tokens: {why}; set a smaller --num-ctx",
            options.name
        ))
    })?;
    let vocab = model.vocab();
    let text = |token| String::from_utf8_lossy(&vocab.token_to_piece(token, true, None)).into_owned();
    let think = profile.think(options.think);
    let template =
        Template::new(header.chat_template.as_deref(), text(vocab.bos()), text(vocab.eos()), think)?;
    let thinking = template.thinks();
    let mut identity = Identity {
        server: String::from(SERVER),
        server_version: Some(crate::VERSION.to_owned()),
        model: options.name.clone(),
        family: Some(header.architecture),
        parameters_b: Some(parameters_b),
        window: Some(window),
        local: true,
        thinking,
        branches: !thinking,
        // An answer that begins with reasoning cannot conform to a schema.
        can_constrain: !thinking,
        sees_images: Some(false),
        slots: Some(parallel_answers(options.gpu_layers > 0, room::threads())),
        ..Identity::default()
    };
    profile.describe(&mut identity);
    let saved = options.cache.as_ref().and_then(|cache| Saved::new(cache, &options.file));
    let facts = Facts { identity, template, warnings: warning.into_iter().collect() };
    Ok((Worker::new(Cache::new(model, context), saved), facts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_answers_at_a_time_follows_the_cores() {
        let answers = [1, 2, 3, 4, 8, 64].map(|threads| parallel_answers(false, threads));
        assert_eq!(answers, [1, 1, 1, 2, 4, 4]);
        assert_eq!(parallel_answers(true, 2), 4);
    }
}
