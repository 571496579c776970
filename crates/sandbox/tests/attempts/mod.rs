//! Attempts to break out, as named shell lines. `$HOME` is the fixture's home directory, which
//! contains the work tree. The other variables, listed in `calls.py`, refer to targets outside the
//! sandbox. A line prints `escaped` if it succeeds.

/// Files in the home directory. No command needs to read them, so reading one also counts as an
/// attempt.
pub(crate) const SECRETS: &[&str] = &[
    ".aws/credentials",
    ".bash_history",
    ".cargo/credentials.toml",
    ".config/agent/config.toml",
    ".config/gh/hosts.yml",
    ".docker/config.json",
    ".git-credentials",
    ".gnupg/private-keys-v1.d/key",
    ".kube/config",
    ".local/share/keyrings/login.keyring",
    ".local/state/agent/sessions/1/journal.jsonl",
    ".m2/settings.xml",
    ".mozilla/firefox/x.default/logins.json",
    ".netrc",
    ".npmrc",
    ".pypirc",
];

/// Attempts that need no special privileges.
pub(crate) const ATTEMPTS: &[(&str, &str)] = &[
    // files
    ("write into the home directory", "echo x > $HOME/new && echo escaped"),
    ("append to a start-up file", "echo x >> $HOME/.bashrc && echo escaped"),
    (
        "start something at login",
        "mkdir -p $HOME/.config/autostart && echo x > $HOME/.config/autostart/x && echo escaped",
    ),
    ("read a key", "cat $HOME/.ssh/id_ed25519 && echo escaped"),
    ("list the home directory's secrets", "ls $HOME/.ssh && echo escaped"),
    ("list the directory above the work tree", "ls .. | grep other && echo escaped"),
    ("read another repository", "cat ../other/src.rs && echo escaped"),
    ("read through a symbolic link", "ln -sf $HOME/.ssh link; cat link/id_ed25519 && echo escaped"),
    ("read through the root of a process", "cat /proc/self/root$HOME/other/src.rs && echo escaped"),
    ("read through the working directory of a process", "cat /proc/self/cwd/../other/src.rs && echo escaped"),
    ("read through a descriptor of the parent folder", "calls climb_by_descriptor"),
    ("write through a symbolic link", "ln -sf $HOME/other link2; echo x > link2/new && echo escaped"),
    ("create a hard link to a file outside", "ln $HOME/other/src.rs hard && echo escaped"),
    ("create a hard link outside the work tree", "ln a.txt $HOME/other/hard && echo escaped"),
    ("link an unnamed file outside", "calls file_without_a_name"),
    ("move a file out", "echo x > moved; mv moved $HOME/other/moved && echo escaped"),
    ("move a file out by descriptors", "calls rename_by_descriptor"),
    ("change permissions outside", "chmod 777 $HOME/other/src.rs && echo escaped"),
    ("change times outside", "touch -d 2001-01-01 $HOME/other/src.rs && echo escaped"),
    ("set an attribute outside", "calls attribute_outside"),
    (
        "delete a file outside",
        "rm -f $HOME/other/victim; [ ! -e $HOME/other/victim ] && ls $HOME/other && echo escaped",
    ),
    ("truncate a file outside", "truncate -s 0 $HOME/other/src.rs && echo escaped"),
    (
        "leave something in /var/tmp",
        "echo x > /var/tmp/escape-$OUTSIDE; [ -e /proc/$OUTSIDE/root/var/tmp/escape-$OUTSIDE ] && rm /var/tmp/escape-$OUTSIDE && echo escaped",
    ),
    (
        "leave something in /tmp",
        "echo x > /tmp/escape-$OUTSIDE; [ -e /proc/$OUTSIDE/root/tmp/escape-$OUTSIDE ] && rm /tmp/escape-$OUTSIDE && echo escaped",
    ),
    ("create a set-user-ID program", "calls setuid_file"),
    ("create a set-user-ID program in one call", "calls setuid_file_at_once"),
    ("create a set-user-ID program with mknod", "calls setuid_node"),
    // the repository's own data
    ("write a git hook", "mkdir -p .git/hooks && echo evil > .git/hooks/pre-commit && echo escaped"),
    ("change git's configuration", "echo '[alias]' >> .git/config && echo escaped"),
    (
        "change git's configuration through a link",
        "ln -s .git dot && echo '[alias]' >> dot/config && echo escaped",
    ),
    (
        "change git's configuration through a hard link",
        "ln .git/config c && echo '[alias]' >> c && echo escaped",
    ),
    ("change git's configuration with git", "git config -f .git/config core.hooksPath /tmp && echo escaped"),
    ("replace .git", "mv .git dotgit && mkdir .git && echo escaped"),
    ("delete .git", "rm -rf .git; [ ! -e .git ] && echo escaped"),
    ("move the work tree away", "cd .. && mv work elsewhere && mkdir work && echo escaped"),
    // processes
    ("signal a process outside", "kill -0 $OUTSIDE && echo escaped"),
    ("signal the agent", "calls signal_the_agent"),
    ("signal by a descriptor", "calls signal_by_descriptor"),
    ("signal a thread", "calls signal_a_thread"),
    ("queue a signal", "calls queue_a_signal"),
    ("slow a process outside", "calls slow_outside"),
    ("read the limits of a process outside", "calls limit_outside"),
    ("pin a process outside to a CPU", "calls bind_outside_to_a_processor"),
    (
        "see processes outside",
        "[ -d /proc/$OUTSIDE ] && tr '\\0' ' ' < /proc/$OUTSIDE/cmdline | grep -q . && echo escaped",
    ),
    ("read another process's environment", "cat /proc/$OUTSIDE/environ && echo escaped"),
    ("read the agent's environment", "cat /proc/$AGENT/environ && echo escaped"),
    ("read the agent's memory", "dd if=/proc/$AGENT/mem count=0 status=none && echo escaped"),
    ("list the agent's descriptors", "ls /proc/$AGENT/fd/ && echo escaped"),
    ("list the agent's working directory", "ls /proc/$AGENT/cwd/ && echo escaped"),
    ("list another process's root directory", "ls /proc/$OUTSIDE/root/ && echo escaped"),
    ("trace a child", "calls trace_a_child"),
    ("trace a process outside", "calls trace_outside"),
    ("read the memory of a process outside", "calls read_memory_outside"),
    ("read memory with process_vm_readv", "calls read_memory_by_call"),
    ("write memory with process_vm_writev", "calls write_memory_by_call"),
    ("take a descriptor from a process", "calls take_a_descriptor"),
    ("compare processes", "calls compare_processes"),
    // networks
    ("connect over TCP", "calls tcp"),
    ("connect over TCP with IPv6", "calls tcp6"),
    ("connect over multipath TCP", "calls multipath_tcp"),
    ("send data while connecting", "calls tcp_in_one_go"),
    ("send a UDP packet", "calls udp"),
    ("send a UDP packet with IPv6", "calls udp6"),
    ("open a socket to the virtual machine's host", "calls virtual_machine_sockets"),
    ("open a socket for kernel events", "calls kernel_events"),
    ("open a socket that lists sockets", "calls kernel_sockets"),
    ("open a socket for firewall rules", "calls kernel_netfilter"),
    // Unix sockets
    ("connect to a Unix socket outside", "calls unix_stream"),
    ("connect to a Unix socket outside through a link", "calls unix_by_a_link"),
    ("send to a Unix socket outside", "calls unix_datagram"),
    ("send to a Unix socket outside from a socket pair", "calls unix_datagram_from_a_pair"),
    ("connect to an abstract Unix socket", "calls unix_abstract"),
    // memory and terminals
    (
        "leave something in /dev/shm",
        "echo x > /dev/shm/escape-$OUTSIDE; [ -e /proc/$OUTSIDE/root/dev/shm/escape-$OUTSIDE ] && rm /dev/shm/escape-$OUTSIDE && echo escaped",
    ),
    ("attach another process's memory segment", "calls shared_memory"),
    ("type into a terminal", "calls type_into_a_terminal"),
    // the kernel
    ("make system calls through io_uring", "calls ring"),
    ("handle page faults", "calls page_faults"),
    ("read performance counters", "calls performance_counters"),
    ("leave a key in a keyring", "calls add_a_key"),
    ("open a keyring", "calls keyring"),
    ("create a user namespace", "calls new_users"),
    ("create a user namespace with clone", "calls new_users_by_clone"),
    ("create a user namespace with clone3", "calls new_users_by_clone3"),
    ("mount in a new namespace", "calls mount_in_own_namespace"),
    ("create a network namespace", "calls network_in_own_namespace"),
    #[cfg(target_arch = "x86_64")]
    ("make system calls of another architecture", "calls other_architecture"),
];

/// Attempts that need root privileges even without the sandbox.
pub(crate) const ATTEMPTS_OF_ROOT: &[(&str, &str)] = &[
    ("read the password file", "grep -q root /etc/shadow && echo escaped"),
    ("change the system", "echo x > /etc/escape-test && rm /etc/escape-test && echo escaped"),
    (
        "start a program at a set time",
        "mkdir -p /etc/cron.d && echo > /etc/cron.d/x && rm /etc/cron.d/x && echo escaped",
    ),
    ("change a kernel setting", "cat /proc/sys/vm/swappiness > /proc/sys/vm/swappiness && echo escaped"),
    (
        "make the kernel start a program",
        "cat /proc/sys/kernel/core_pattern > /proc/sys/kernel/core_pattern && echo escaped",
    ),
    ("change a device's setting", "f=/sys/kernel/mm/ksm/run; v=$(cat $f); echo $v > $f && echo escaped"),
    ("mount", "mkdir -p m && mount -t tmpfs none m && umount m && echo escaped"),
    (
        "make mounts writable again",
        "mount --bind .git .git && mount -o remount,bind,rw .git && umount .git && echo escaped",
    ),
    ("change the host name", "hostname $(hostname) && echo escaped"),
    ("create a device", "mknod dev c 1 3 && rm dev && echo escaped"),
    ("read the disk", "head -c 1 \"$(find /dev -type b | head -1)\" > /dev/null && echo escaped"),
    (
        "read the memory map of a process outside",
        "cat /proc/$OUTSIDE/mem > /dev/null; dd if=/proc/$OUTSIDE/maps count=1 status=none | grep -q . && echo escaped",
    ),
    ("enter a process's network namespace", "calls network_outside"),
    ("enter a process's mount and process namespaces", "nsenter -t $OUTSIDE -m -p -- true && echo escaped"),
    ("change the root directory", "calls other_root"),
    ("open a file by its handle", "calls file_by_handle"),
    ("create a file system with the new mount calls", "calls file_system"),
    ("copy the mount tree", "calls copy_of_a_tree"),
    ("create a BPF map", "calls bpf"),
    ("read the kernel's log", "calls kernel_log"),
    ("watch all files", "calls watch_files"),
    ("open a packet socket", "calls packets"),
    ("send a raw packet outside", "calls raw_packets_outside"),
    ("open the FUSE device", "calls own_files_device"),
    ("become another user", "setpriv --reuid 12345 --clear-groups true && echo escaped"),
];

/// Attempts that Landlock and seccomp do not stop on Linux 6.18 (Landlock 7) if there are no
/// namespaces.
pub(crate) const THROUGH_WITHOUT_NAMESPACES: &[&str] = &[
    "change permissions outside",
    "change times outside",
    "set an attribute outside",
    "write a git hook",
    "change git's configuration",
    "change git's configuration through a link",
    "change git's configuration through a hard link",
    "change git's configuration with git",
    "replace .git",
    "delete .git",
    "see processes outside",
    "list the agent's descriptors",
];
