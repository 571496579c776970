//! Turns settings into the sandbox for commands.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use sandbox::{Host, Level, Network, Policy, ResourceLimits, Sandbox};

use crate::exit::{Failure, Result};
use crate::settings::Settings;

/// If this is the first argument, this binary acts as the sandbox's launcher.
pub(crate) const LAUNCHER: &str = "__sandbox";

/// Returns the command that the sandbox uses to start this binary as its launcher.
pub(crate) fn launcher() -> Vec<OsString> {
    vec!["/proc/self/exe".into(), LAUNCHER.into()]
}

/// Creates the sandbox for a work tree. The sandbox's private files go to `folder`.
///
/// # Errors
/// Same as [`policy`], or if a path in the policy does not exist.
pub(crate) fn sandbox(
    settings: &Settings,
    root: &Path,
    folder: Option<PathBuf>,
    variables: Vec<(OsString, OsString)>,
) -> Result<Sandbox> {
    let policy = Policy { folder, ..policy(settings, root, variables)? };
    Sandbox::new(policy, launcher()).map_err(Failure::refused)
}

/// Creates the sandbox for the user's hooks in a work tree. A confined hook has the same
/// permissions as commands, except that it cannot write to the work tree. An unconfined hook has
/// the user's permissions and this process's entire environment.
///
/// # Errors
/// Same as [`sandbox()`].
pub(crate) fn hook_sandbox(
    settings: &Settings,
    root: &Path,
    folder: Option<PathBuf>,
    variables: Vec<(OsString, OsString)>,
    confined: bool,
) -> Result<Sandbox> {
    let policy = Policy { folder, ..policy(settings, root, variables.clone())? };
    let policy = match confined {
        true => Policy { read_only: true, ..policy },
        false => Policy { level: Level::Off, env: variables, ..policy },
    };
    Sandbox::new(policy, launcher()).map_err(Failure::refused)
}

/// Returns the policy for a work tree. `variables` is the environment of this process; commands get
/// only part of it.
///
/// # Errors
/// If a path is neither absolute nor below a known home folder, if a host is invalid, or if hosts
/// are allowed while commands have no network.
fn policy(settings: &Settings, root: &Path, variables: Vec<(OsString, OsString)>) -> Result<Policy> {
    let home = variables.iter().find(|(name, _)| name == "HOME").map(|(_, value)| PathBuf::from(value));
    let paths = |given: &Option<String>| -> Result<Vec<PathBuf>> {
        let given = given.as_deref().unwrap_or_default();
        given.split(':').filter(|p| !p.is_empty()).map(|p| absolute(p, home.as_deref())).collect()
    };
    let network = match settings.command_network.as_str() {
        "none" => Network::None,
        "full" => Network::Full,
        _ => Network::Loopback,
    };
    let hosts = settings.allow_hosts.as_deref().unwrap_or_default().split(',').map(str::trim);
    let hosts = hosts.filter(|host| !host.is_empty()).map(str::parse);
    let hosts: Vec<Host> = hosts.collect::<Result<_, _>>().map_err(Failure::misuse)?;
    if network == Network::None && !hosts.is_empty() {
        return Err(Failure::misuse(
            "command_network = \"none\" conflicts with allow_hosts: without a network, no host can be reached",
        ));
    }
    let default = ResourceLimits::default();
    let limits = ResourceLimits {
        memory: settings.command_memory.map_or(default.memory, |mebibytes| mebibytes << 20),
        processes: settings.command_processes,
        file_size: settings.command_file_size << 20,
        ..default
    };
    Ok(Policy {
        read_only: settings.command_read_only,
        extra_read: paths(&settings.allow_read)?,
        extra_write: paths(&settings.allow_write)?,
        network,
        hosts,
        env: environment(settings, variables),
        level: if settings.sandbox { Level::default() } else { Level::Off },
        limits,
        ..Policy::new(root)
    })
}

/// Returns the environment for commands: the variables on the sandbox's allow list, and those that
/// the user passes to commands.
fn environment(settings: &Settings, variables: Vec<(OsString, OsString)>) -> Vec<(OsString, OsString)> {
    let given = given(settings, &variables);
    let names: Vec<_> = given.iter().filter_map(|(name, _)| name.to_str().map(str::to_owned)).collect();
    let inherited =
        variables.into_iter().filter(|(name, _)| !names.iter().any(|given| name == given.as_str()));
    sandbox::clean_environment(inherited.chain(given.clone()), &names)
}

/// Returns the variables that the user passes to commands, with their values.
pub(crate) fn given(settings: &Settings, variables: &[(OsString, OsString)]) -> Vec<(OsString, OsString)> {
    let entries = settings.env.iter().flatten();
    let value = |entry: &String| match entry.split_once('=') {
        Some((name, value)) => Some((name.into(), value.into())),
        None => variables.iter().find(|(name, _)| name == entry.as_str()).cloned(),
    };
    entries.filter_map(value).collect()
}

/// Resolves a path from the settings. The path may start with `~/`.
fn absolute(path: &str, home: Option<&Path>) -> Result<PathBuf> {
    match (path.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => Ok(home.join(rest)),
        (Some(_), None) => {
            Err(Failure::misuse(format!("cannot resolve the path {path:?} for commands: HOME is not set")))
        }
        (None, _) if path.starts_with('/') => Ok(path.into()),
        _ => Err(Failure::misuse(format!("invalid path {path:?} for commands: it must start with / or ~/"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_absolute_or_below_home() {
        let home = Some(Path::new("/home/a"));
        assert_eq!(absolute("~/x", home).unwrap(), Path::new("/home/a/x"));
        assert_eq!(absolute("/x", None).unwrap(), Path::new("/x"));
        for wrong in ["x", "../x", "~", "~b/x"] {
            assert!(absolute(wrong, home).is_err(), "{wrong}");
        }
        let failed = absolute("~/x", None).err().unwrap();
        assert!(failed.error.to_string().ends_with("HOME is not set"), "{}", failed.error);
    }
}
