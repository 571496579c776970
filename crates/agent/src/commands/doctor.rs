//! `agent doctor`: could a run start here, and if not, what is to be done? Every line is one finding.

use std::path::Path;

use journal::{Event, TreeWay};
use models::Notices;
use serde::Serialize;

use crate::cli::Doctor;
use crate::console;
use crate::context::Context;
use crate::dry_tree;
use crate::edit_form;
use crate::exit::{Exit, Failure, Result};
use crate::figures::{plural, thousands};
use crate::interrupt;
use crate::masking;
use crate::sanitize;
use crate::session;
use crate::settings::Settings;
use crate::{commands, model};
use preview::Style;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Health {
    Ok,
    Warn,
    Fail,
}

#[derive(Debug, Serialize)]
struct Finding {
    subject: &'static str,
    health: Health,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

/// What was found, in order.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, subject: &'static str, found: impl Into<String>) {
        self.0.push(Finding { subject, health: Health::Ok, found: found.into(), mend: None });
    }

    fn bad(&mut self, health: Health, subject: &'static str, found: impl Into<String>, mend: &str) {
        let mend = Some(mend.to_owned()).filter(|m| !m.is_empty());
        self.0.push(Finding { subject, health, found: found.into(), mend });
    }

    fn failure(&mut self, subject: &'static str, failure: &Failure) {
        self.bad(Health::Fail, subject, format!("{:#}", failure.error), &failure.hints.join("; "));
    }
}

/// Looks at everything a run needs.
pub(crate) fn run(command: &Doctor, context: &Context) -> Result<Exit> {
    let mut findings = Findings::default();
    match context.resolve(&command.settings.given).and_then(|r| r.settings()) {
        Ok(settings) => {
            findings.ok("settings", "read without errors; `agent config show` lists them");
            interrupt::block_on(async {
                server(&settings, &mut findings).await;
                place(&settings, context, &mut findings).await;
                Ok(())
            })?;
        }
        Err(failure) => findings.failure("settings", &failure),
    }
    let healthy = findings.0.iter().all(|f| f.health != Health::Fail);
    if command.json {
        let value = serde_json::json!({"ok": healthy, "findings": findings.0});
        console::print(format!("{value:#}\n"))?;
    } else {
        print(&findings.0)?;
    }
    Ok(if healthy { Exit::Success } else { Exit::Negative })
}

fn print(findings: &[Finding]) -> Result<()> {
    let paint = console::stdout_paint();
    for f in findings {
        let sign = match f.health {
            Health::Ok => paint.paint(Style::Good, "ok  "),
            Health::Warn => paint.paint(Style::Warn, "warn"),
            Health::Fail => paint.paint(Style::Bad, "FAIL"),
        };
        let found = sanitize::text(&f.found).replace('\n', "\n                ");
        let mut text = format!("{sign}  {:8}  {found}\n", f.subject);
        if let Some(mend) = &f.mend {
            text.push_str(&format!("      {:8}  → {}\n", "", sanitize::text(mend)));
        }
        console::print(text)?;
    }
    Ok(())
}

/// The model's server, the model, its window, the form of edits.
async fn server(settings: &Settings, findings: &mut Findings) {
    // A check-up pulls nothing, whatever the settings say.
    let settings = Settings { pull: false, ..settings.clone() };
    let chosen = match model::open(&settings, false, Notices::default()).await {
        Ok(chosen) => chosen,
        Err(failure) => return findings.failure("model", &failure),
    };
    let identity = chosen.model.identity();
    let version = identity.server_version.as_deref().unwrap_or("of unknown version");
    findings.ok("server", format!("{} {version}", identity.server));
    findings.ok("model", chosen.why);
    for warning in chosen.warnings {
        findings.bad(Health::Warn, "model", warning, "");
    }
    // What is not loaded yet stays so: a check-up loads nothing.
    let outlook = match chosen.model.outlook().await {
        Ok(outlook) => outlook,
        Err(error) => return findings.failure("model", &error.into()),
    };
    match (identity.window, outlook) {
        (Some(window), _) if window < 8_192 => findings.bad(
            Health::Warn,
            "window",
            format!("{} tokens: little room for files and test output", thousands(window)),
            "ask for more with --num-ctx, or take a model that was trained for more",
        ),
        (_, Some(outlook)) => findings.ok("window", outlook),
        (Some(window), None) => findings.ok("window", format!("{} tokens", thousands(window))),
        (None, None) => findings.bad(
            Health::Warn,
            "window",
            "the server does not tell",
            "say how large it is with --num-ctx, so that nothing is cut silently",
        ),
    }
    match session::plan(&settings) {
        Ok(plan) => findings.ok(
            "dialect",
            match plan.approach.resolve(&identity) {
                planner::Approach::WholeFile => "whole files, as small models do best",
                planner::Approach::Tools | planner::Approach::Auto => "JSON tool calls",
            },
        ),
        Err(failure) => findings.failure("dialect", &failure),
    }
    let form = edit_form::choose(&settings, Some(&identity));
    findings.ok("edits", format!("{} ({})", form.word, form.because));
}

/// The folder, git, the sandbox, the tests, the place for sessions.
async fn place(settings: &Settings, context: &Context, findings: &mut Findings) {
    match &context.repository {
        Some(root) => findings.ok("folder", format!("the repository {}", root.display())),
        None => findings.bad(
            Health::Warn,
            "folder",
            format!("{} is not inside a git repository", context.directory.display()),
            "run `git init`, so that you can look at changes and take them back with git as well",
        ),
    }
    if let Err(failure) = commands::run::root(context) {
        findings.failure("folder", &failure);
    }
    match tokio::process::Command::from(workspace::git(&context.directory)).arg("--version").output().await {
        Ok(out) if out.status.success() => {
            findings.ok("git", String::from_utf8_lossy(&out.stdout).trim().to_owned());
        }
        _ => findings.bad(
            Health::Fail,
            "git",
            "git does not start",
            "install git: it tells what a run has changed",
        ),
    }
    let state = match context.state_dir().and_then(|dir| writable(&dir).map(|()| dir)) {
        Ok(dir) => dir,
        Err(failure) => return findings.failure("state", &failure),
    };
    findings.ok("state", format!("sessions are kept in {}", state.display()));
    let root = context.repository.as_ref().unwrap_or(&context.directory);
    if root.is_dir() {
        dry_run(root, &state.join("doctor"), findings);
    }
    let variables: Vec<_> = std::env::vars_os().collect();
    let secrets = masking::secrets(settings, &variables, "doctor");
    if settings.mask_secrets {
        let values = plural(secrets.known() as u64, "value");
        findings.ok("secrets", format!("masked: {values} of variables, and what has the look of a key"));
    } else {
        let found = "shown to the model, the journal and the screen";
        findings.bad(
            Health::Warn,
            "secrets",
            found,
            "leave out --no-mask-secrets, or set mask_secrets = true",
        );
    }
    let toolbox = session::sandbox(settings, root, None, variables).and_then(|sandbox| {
        session::toolbox(settings, &secrets, root, &state.join("doctor"), sandbox, &workspace::Own::default())
    });
    let toolbox = match toolbox {
        Ok(toolbox) => toolbox,
        Err(failure) => return findings.failure("sandbox", &failure),
    };
    match toolbox.sandbox.self_test().await {
        Ok(report) if report.enforced => findings.ok("sandbox", report.lines.join("\n")),
        Ok(report) => findings.bad(Health::Warn, "sandbox", report.lines.join("\n"), ""),
        Err(error) => findings.bad(Health::Fail, "sandbox", error.to_string(), ""),
    }
    match toolbox.tests.command() {
        Some(command) => findings.ok("tests", format!("{} ({})", command.display(), command.why)),
        None => findings.bad(
            Health::Warn,
            "tests",
            "no test command was found",
            "name the command that decides whether a task is done with --verify CMD, or in .agent.toml",
        ),
    }
}

/// What a dry run would work in, and why.
fn dry_run(root: &Path, folder: &Path, findings: &mut Findings) {
    let Err(why) = sandbox::overlay::probe(root, &dry_tree::layers(folder), &session::launcher()) else {
        return findings.ok("dry run", dry_tree::describe(TreeWay::Overlay, 0, 0, ""));
    };
    match dry_tree::cost(root, folder, &workspace::Own::default(), why) {
        Ok(Event::Tree { way, files, bytes, why }) => {
            let found = dry_tree::describe(way, files, bytes, &why);
            match way {
                TreeWay::Copy => findings.bad(Health::Warn, "dry run", found, ""),
                TreeWay::Overlay | TreeWay::Reflinks => findings.ok("dry run", found),
            }
        }
        Ok(_) => {}
        Err(failure) => findings.failure("dry run", &failure),
    }
}

fn writable(dir: &std::path::Path) -> Result<()> {
    let say = |e: std::io::Error| {
        Failure::misuse(format!("sessions cannot be kept in {}: {e}", dir.display()))
            .hint("make the folder writable, or set AGENT_STATE_DIR to one that is")
    };
    std::fs::create_dir_all(dir).map_err(say)?;
    let probe = dir.join(format!(".doctor-{}", std::process::id()));
    std::fs::write(&probe, b"").map_err(say)?;
    std::fs::remove_file(&probe).map_err(say)
}
