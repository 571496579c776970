//! Creates the namespaces with bubblewrap on systems that do not allow this program to create them.
//! On such systems, bubblewrap is set-user-ID or has its own AppArmor profile (Ubuntu 24.04 and
//! later). Bubblewrap gives the launcher the same view as [`crate::confine::arrange`]. Landlock,
//! the filter and the limits are applied inside the sandbox, by the launcher itself.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{Network, order::Order, view::View};

/// Where systems install bubblewrap. `PATH` is not used, because it may point into a repository.
const PLACES: &[&str] = &["/usr/bin/bwrap", "/bin/bwrap", "/usr/local/bin/bwrap"];

/// The launcher's path inside the sandbox. It is in `/dev`, because bubblewrap always mounts a new
/// `/dev` for the sandbox.
const LAUNCHER: &str = "/dev/agent-sandbox";

/// Returns the path of the system's bubblewrap, if only root can modify or replace it.
pub(crate) fn find() -> Option<PathBuf> {
    PLACES.iter().find_map(|place| owned_by_root(Path::new(place)))
}

/// Returns the program at `place`, if only root can modify or replace it.
fn owned_by_root(place: &Path) -> Option<PathBuf> {
    let program = fs::canonicalize(place).ok()?;
    let owned_by_root =
        |path: &Path| fs::metadata(path).is_ok_and(|about| about.uid() == 0 && about.mode() & 0o022 == 0);
    (program.is_file() && program.ancestors().all(owned_by_root)).then_some(program)
}

/// Returns the arguments for bubblewrap, which precede the launcher's own. Bubblewrap applies them
/// in order. Every source path is a path outside the sandbox.
pub(crate) fn arguments(order: &Order, launcher: &OsStr) -> Vec<OsString> {
    let mut all = Arguments(Vec::new());
    // A user namespace is needed only if bubblewrap is not set-user-ID.
    all.add(["--unshare-user-try", "--unshare-pid", "--unshare-ipc", "--die-with-parent"]);
    if order.network != Network::Full {
        all.add(["--unshare-net"]);
    }
    all.add(["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]);
    all.show(&order.view);
    all.add([OsStr::new("--ro-bind"), launcher, OsStr::new(LAUNCHER)]);
    all.add(["--", LAUNCHER]);
    all.0
}

struct Arguments(Vec<OsString>);

impl Arguments {
    fn add<const N: usize>(&mut self, words: [impl AsRef<OsStr>; N]) {
        self.0.extend(words.iter().map(|word| word.as_ref().to_owned()));
    }

    /// Mounts a path at the same location inside the sandbox.
    fn add_same(&mut self, how: &str, path: &OsStr) {
        self.add([OsStr::new(how), path, path]);
    }

    fn show(&mut self, view: &View) {
        let below = |dirs: &[OsString], path: &OsStr| dirs.iter().any(|dir| Path::new(path).starts_with(dir));
        for dir in view.hide.iter().filter(|dir| *dir != "/dev/shm") {
            match dir.to_str() {
                Some("/tmp" | "/var/tmp") => self.add([OsStr::new("--bind"), &view.tmp, dir]),
                _ => self.add([OsStr::new("--tmpfs"), dir]),
            }
        }
        if view.hide.iter().any(|dir| dir == "/var") {
            self.add([OsStr::new("--bind"), &view.tmp, OsStr::new("/var/tmp")]);
        }
        for path in view.read.iter().filter(|path| below(&view.hide, path)) {
            self.add_same("--ro-bind-try", path);
        }
        for path in &view.write {
            self.add_same("--bind", path);
        }
        for path in &view.protect {
            self.add_same("--ro-bind-try", path);
        }
        let shown = |at: &OsStr| below(&view.read, at) || below(&view.write, at);
        for (at, to) in view.links.iter().filter(|(at, _)| below(&view.hide, at) && !shown(at)) {
            self.add([OsStr::new("--symlink"), to, at]);
        }
        for path in &view.secrets {
            match Path::new(path).is_dir() {
                true => self.add([OsStr::new("--tmpfs"), path]),
                false => self.add([OsStr::new("--ro-bind"), OsStr::new("/dev/null"), path]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::{
        ResourceLimits,
        order::{Profile, Task},
    };

    fn line(network: Network) -> String {
        let paths = |all: &[&str]| all.iter().map(Into::into).collect::<Vec<OsString>>();
        let view = View {
            root: "/home/a/work".into(),
            tmp: "/state/tmp".into(),
            read: paths(&["/etc", "/home/a/.cargo/bin", "/usr"]),
            write: paths(&["/home/a/work"]),
            secrets: paths(&["/etc/shadow"]),
            protect: paths(&["/home/a/work/.git"]),
            hide: paths(&["/dev/shm", "/home", "/tmp", "/var"]),
            links: vec![
                ("/home/a/.cargo/bin/x".into(), "/usr/bin/x".into()),
                ("/home/a/tools".into(), "/opt/t".into()),
            ],
            ..View::default()
        };
        let order = Order {
            profile: Profile::default(),
            view,
            network,
            proxy: false,
            limits: ResourceLimits::default(),
            user_namespace: true,
            task: Task::Overlay { root: "".into(), dir: "".into() },
        };
        let all = arguments(&order, OsStr::new("/opt/agent"));
        all.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ").replace(" --", "\n--")
    }

    #[test]
    fn directories_are_hidden_before_paths_in_them_are_shown() {
        let wanted = "--unshare-user-try\n--unshare-pid\n--unshare-ipc\n--die-with-parent\n--unshare-net\n--ro-bind / /\n--dev /dev\n\
            --proc /proc\n--tmpfs /home\n--bind /state/tmp /tmp\n--tmpfs /var\n--bind /state/tmp /var/tmp\n\
            --ro-bind-try /home/a/.cargo/bin /home/a/.cargo/bin\n--bind /home/a/work /home/a/work\n\
            --ro-bind-try /home/a/work/.git /home/a/work/.git\n--symlink /opt/t /home/a/tools\n--ro-bind /dev/null /etc/shadow\n\
            --ro-bind /opt/agent /dev/agent-sandbox\n-- /dev/agent-sandbox";
        assert_eq!(line(Network::Loopback), wanted);
        assert!(!line(Network::Full).contains("--unshare-net"));
    }

    #[test]
    fn a_program_that_others_can_write_or_replace_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let (open, closed) = (dir.path().join("open"), dir.path().join("closed"));
        for (program, mode) in [(&open, 0o777), (&closed, 0o755)] {
            fs::write(program, "").unwrap();
            fs::set_permissions(program, fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(
            (owned_by_root(&open), owned_by_root(&closed), owned_by_root(Path::new("/no/such"))),
            (None, None, None)
        );
        assert_eq!(owned_by_root(Path::new("/bin/sh")), fs::canonicalize("/bin/sh").ok());
    }
}
