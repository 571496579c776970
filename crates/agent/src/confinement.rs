//! What commands may do, from the settings: the one place where they become a policy of the sandbox.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use sandbox::{Host, Level, Network, Policy, ResourceLimits};

use crate::exit::{Failure, Result};
use crate::settings::Settings;

/// The policy for a work tree. `variables` are the program's own; commands get a part of them.
///
/// # Errors
/// When a path of the settings is relative, or `~` leads nowhere; when a host is none, or there is to be no network to reach it by.
pub(crate) fn policy(
    settings: &Settings,
    root: &Path,
    variables: Vec<(OsString, OsString)>,
) -> Result<Policy> {
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
            "commands cannot have no network at all (command_network) and hosts to reach (allow_hosts)",
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
        env: sandbox::clean_environment(variables, &[]),
        level: if settings.sandbox { Level::default() } else { Level::Off },
        limits,
        ..Policy::new(root)
    })
}

/// A path of the settings, which may begin with `~/`.
fn absolute(path: &str, home: Option<&Path>) -> Result<PathBuf> {
    match (path.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => Ok(home.join(rest)),
        (None, _) if path.starts_with('/') => Ok(path.into()),
        _ => Err(Failure::misuse(format!("{path}: a path that commands may use must begin with / or ~/"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_begin_at_the_root_or_at_home() {
        let home = Some(Path::new("/home/a"));
        assert_eq!(absolute("~/x", home).unwrap(), Path::new("/home/a/x"));
        assert_eq!(absolute("/x", None).unwrap(), Path::new("/x"));
        for wrong in ["x", "../x", "~", "~b/x"] {
            assert!(absolute(wrong, home).is_err(), "{wrong}");
        }
        assert!(absolute("~/x", None).is_err());
    }
}
