//! `agent doctor`: checks whether a run could start here, and explains how to fix any problems.
//! Each line is one finding.

use std::path::Path;
use std::time::SystemTime;

use journal::{Event, TreeWay};
use models::profile::{About, Profiles};
use models::{Notices, Price};
use serde::Serialize;

use crate::cli::Doctor;
use crate::confinement;
use crate::console;
use crate::context::Context;
use crate::dry_tree;
use crate::exit::{Exit, Failure, Result};
use crate::figures::{plural, thousands};
use crate::interrupt;
use crate::language_servers::LanguageServers;
use crate::layers::Resolved;
use crate::masking;
use crate::mcp_servers::configured::{Configured, configured};
use crate::mcp_servers::{self, Place};
use crate::profiles::{self, Asked};
use crate::sanitize;
use crate::session::{self, Additions};
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
    fix: Option<String>,
}

/// The findings, in order.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, subject: &'static str, found: impl Into<String>) {
        self.0.push(Finding { subject, health: Health::Ok, found: found.into(), fix: None });
    }

    fn bad(&mut self, health: Health, subject: &'static str, found: impl Into<String>, fix: &str) {
        let fix = Some(fix.to_owned()).filter(|fix| !fix.is_empty());
        self.0.push(Finding { subject, health, found: found.into(), fix });
    }

    fn warn(&mut self, subject: &'static str, found: impl Into<String>, fix: &str) {
        self.bad(Health::Warn, subject, found, fix);
    }

    fn failure(&mut self, subject: &'static str, failure: &Failure) {
        self.bad(Health::Fail, subject, format!("{:#}", failure.error), &failure.hints.join("; "));
    }
}

/// Checks everything a run needs.
pub(crate) fn run(command: &Doctor, context: &Context) -> Result<Exit> {
    let mut findings = Findings::default();
    let resolved = context.resolve(&command.settings.given);
    let profiles = profiles::load(&context.environment);
    match resolved.and_then(|resolved| Ok((resolved.settings()?, resolved, profiles?))) {
        Ok((settings, resolved, profiles)) => {
            findings.ok("settings", "valid; `agent config show` lists them");
            interrupt::block_on(async {
                server(&settings, &resolved, &profiles, &mut findings).await;
                place(&settings, context, &mut findings).await;
                mcp(&settings, context, &mut findings).await;
                language_servers(&settings, context, &mut findings).await;
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
        if let Some(fix) = &f.fix {
            text.push_str(&format!("      {:8}  → {}\n", "", sanitize::text(fix)));
        }
        console::print(text)?;
    }
    Ok(())
}

/// Checks the model server, the model and its context window, and reports how a run would use the
/// model.
async fn server(settings: &Settings, resolved: &Resolved, profiles: &Profiles, findings: &mut Findings) {
    // A check never downloads anything.
    let settings = Settings { pull: false, ..settings.clone() };
    let chosen = match model::open(&settings, false, Notices::default()).await {
        Ok(chosen) => chosen,
        Err(failure) => return findings.failure("model", &failure),
    };
    let identity = chosen.model.identity();
    let version = identity.server_version.as_deref().unwrap_or("(version unknown)");
    findings.ok("server", format!("{} {version}", identity.server));
    findings.ok("model", chosen.why);
    for warning in chosen.warnings {
        findings.warn("model", warning, "");
    }
    // This check does not cause a server to load a model. An embedded model has already been
    // loaded, and thus checked, above.
    let outlook = match chosen.model.outlook().await {
        Ok(outlook) => outlook,
        Err(error) => return findings.failure("model", &error.into()),
    };
    let about =
        About { name: &identity.model, parameters_b: identity.parameters_b, server: &identity.server };
    let asked = Asked { settings: resolved, profile: profiles.resolve(about) };
    let wanted = asked.window().map(|window| format!("\nwanted: {window}")).unwrap_or_default();
    match (identity.window, outlook) {
        (Some(window), _) if window < 8_192 => findings.warn(
            "window",
            format!("{} tokens: little room for files and test output{wanted}", thousands(window)),
            "request more with --num-ctx, or use a model with a larger window",
        ),
        (_, Some(outlook)) => findings.ok("window", outlook + &wanted),
        (Some(window), None) => findings.ok("window", format!("{} tokens{wanted}", thousands(window))),
        (None, None) => findings.warn(
            "window",
            "unknown: the server does not report it",
            "set it with --num-ctx, so that prompts are not truncated silently",
        ),
    }
    findings.ok("approach", asked.approach(Some(&identity)));
    findings.ok("edits", asked.edit_format(Some(&identity)));
    findings.ok("sampling", format!("temperature {}", asked.temperature(identity.thinking)));
    findings.ok("thinking", asked.thinking());
    findings.ok("calls", format!("constrained: {}", asked.constrain(Some(&identity))));
    if let Some(price) = &identity.price {
        findings.ok("prices", describe(price));
    }
}

/// Describes a price, its date and its source.
fn describe(price: &Price) -> String {
    let (prompt, cached, generated) = price.rates;
    let mut text = format!(
        "${prompt} per million prompt tokens (${cached} if cached), ${generated} per million generated tokens"
    );
    if let Some(factor) = price.peak_factor() {
        let now = if price.is_peak(SystemTime::now()) { ", including now" } else { "" };
        text.push_str(&format!("\n{factor}x that price during peak hours{now}"));
    }
    let of = price.as_of.map(|date| format!("as of {date}"));
    let source = Some(price.source.clone()).filter(|source| !source.is_empty());
    let facts: Vec<String> = [of, source, price.snapshot.clone()].into_iter().flatten().collect();
    if facts.is_empty() { text } else { format!("{text}\n{}", facts.join(", ")) }
}

/// Checks the folder, git, the state folder, the sandbox and the tests.
async fn place(settings: &Settings, context: &Context, findings: &mut Findings) {
    match &context.repository {
        Some(root) => findings.ok("folder", format!("repository {}", root.display())),
        None => findings.warn(
            "folder",
            format!("{} is not inside a git repository", context.directory.display()),
            "run `git init`, so that you can review and revert changes with git too",
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
            "cannot run git",
            "install git: runs use it to find out what changed",
        ),
    }
    let state = match context.state_dir().and_then(|dir| writable(&dir).map(|()| dir)) {
        Ok(dir) => dir,
        Err(failure) => return findings.failure("state", &failure),
    };
    findings.ok("state", format!("sessions are stored in {}", state.display()));
    let root = context.repository.as_ref().unwrap_or(&context.directory);
    if root.is_dir() {
        if let Ok(false) = workspace::Workspace::open(root).map(|ws| ws.can_exchange().unwrap_or(true)) {
            let found =
                "the file system cannot exchange files atomically, so edits take more steps and are slower";
            findings.warn("files", found, "");
        }
        dry_run(root, &state.join("doctor"), findings);
    }
    let variables: Vec<_> = std::env::vars_os().collect();
    let secrets = masking::secrets(settings, &variables, "doctor");
    if settings.mask_secrets {
        let values = plural(secrets.known_count() as u64, "value");
        findings.ok(
            "secrets",
            format!("masked: {values} from environment variables, and text that looks like a key"),
        );
    } else {
        let found = "not masked for the model, the journal or the screen";
        findings.warn("secrets", found, "remove --no-mask-secrets, or set mask_secrets = true");
    }
    let toolbox = confinement::sandbox(settings, root, None, variables).and_then(|sandbox| {
        let (own, none) = (workspace::Own::default(), Additions::default());
        session::toolbox(settings, &secrets, root, &state.join("doctor"), sandbox, &own, none)
    });
    let toolbox = match toolbox {
        Ok(toolbox) => toolbox,
        Err(failure) => return findings.failure("sandbox", &failure),
    };
    match toolbox.sandbox.self_test().await {
        Ok(report) if report.enforced => findings.ok("sandbox", report.lines.join("\n")),
        Ok(report) => findings.warn("sandbox", report.lines.join("\n"), ""),
        Err(error) => findings.bad(Health::Fail, "sandbox", error.to_string(), ""),
    }
    match toolbox.tests.command() {
        Some(command) => findings.ok("tests", format!("{} ({})", command.display(), command.why)),
        None => findings.warn(
            "tests",
            "no test command detected",
            "set the command that decides whether a task is done: --verify CMD, or verify in .agent.toml",
        ),
    }
}

/// Checks that each MCP server starts, and estimates the prompt tokens of its tools.
async fn mcp(settings: &Settings, context: &Context, findings: &mut Findings) {
    let (Ok(root), Ok(state)) = (context.tree(), context.state_dir()) else { return };
    let Configured { entries, warnings, unapproved } = configured(&context.environment, root, &state);
    for warning in warnings {
        findings.warn("mcp", warning, "");
    }
    if let Some(file) = unapproved {
        findings.warn("mcp", file.warning(), "");
    }
    let place = Place { repository: root, tree: root, session: None, state: &state };
    let variables: Vec<_> = std::env::vars_os().collect();
    let inspected = mcp_servers::inspect(entries, settings, &variables, &place).await;
    mcp_servers::stop(&inspected).await;
    for one in &inspected {
        let name = &one.entry.name;
        match &one.found {
            Ok((_, tools)) => {
                let (count, tokens) = (plural(tools.len() as u64, "tool"), thousands(one.prompt_tokens()));
                findings.ok(
                    "mcp",
                    format!("{name}: {count}, about {tokens} prompt tokens if a run uses all of them"),
                );
            }
            Err(why) => {
                let fix = format!("try it with `agent mcp test {name}`");
                findings.warn("mcp", format!("{name} does not start: {why}"), &fix);
            }
        }
        one.warnings.iter().for_each(|warning| findings.warn("mcp", warning.as_str(), ""));
    }
}

/// Checks that each language server starts.
async fn language_servers(settings: &Settings, context: &Context, findings: &mut Findings) {
    let Ok(root) = context.tree() else { return };
    let variables: Vec<_> = std::env::vars_os().collect();
    let secrets = masking::secrets(settings, &variables, "language servers");
    match LanguageServers::new(settings, root, None, &variables, &secrets) {
        Ok(None) => {}
        Ok(Some(servers)) => {
            for (command, failed) in servers.try_all().await {
                match failed {
                    None => findings.ok("edits", format!("checked by `{command}`")),
                    Some(why) => findings.warn(
                        "edits",
                        format!("the language server `{command}` does not start: {why}"),
                        "install it, or remove it from language_servers in the user's settings",
                    ),
                }
            }
            servers.stop().await;
        }
        Err(failure) => findings.failure("edits", &failure),
    }
}

/// Checks which kind of tree a dry run would use.
fn dry_run(root: &Path, folder: &Path, findings: &mut Findings) {
    let Err(why) = sandbox::overlay::probe(root, &dry_tree::layers(folder), &confinement::launcher()) else {
        return findings.ok("dry run", dry_tree::describe(TreeWay::Overlay, 0, 0, ""));
    };
    match dry_tree::cost(root, folder, &workspace::Own::default(), why) {
        Ok(Event::Tree { way, files, bytes, why }) => {
            let found = dry_tree::describe(way, files, bytes, &why);
            match way {
                TreeWay::Copy => findings.warn("dry run", found, ""),
                TreeWay::Overlay | TreeWay::Reflinks => findings.ok("dry run", found),
            }
        }
        Ok(_) => {}
        Err(failure) => findings.failure("dry run", &failure),
    }
}

fn writable(dir: &std::path::Path) -> Result<()> {
    let say = |e: std::io::Error| {
        Failure::misuse(format!("cannot write sessions to {}: {e}", dir.display()))
            .hint("make the folder writable, or set AGENT_STATE_DIR to another folder")
    };
    std::fs::create_dir_all(dir).map_err(say)?;
    let probe = dir.join(format!(".doctor-{}", std::process::id()));
    std::fs::write(&probe, b"").map_err(say)?;
    std::fs::remove_file(&probe).map_err(say)
}
