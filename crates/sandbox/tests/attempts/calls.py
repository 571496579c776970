"""Attempts to escape that a shell cannot make: "python3 calls.py NAME" prints "escaped" if the
attempt succeeds.

These variables identify targets outside the sandbox: OUTSIDE, a process that does nothing; AGENT,
the process that runs the sandbox; TCP, TCP6, UDP and UDP6, ports on loopback whose servers answer;
UNIX, UNIX_DATAGRAM and ABSTRACT, sockets; SHARED, a System V shared memory segment.
"""

import ctypes
import fcntl
import mmap
import os
import platform
import signal
import socket
import struct
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
X86 = platform.machine() == "x86_64"
# System call numbers on x86-64, then in the kernel's generic list, which arm64 and riscv64 use.
NUMBERS = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138), "io_uring_setup": (425, 425), "userfaultfd": (323, 282), "unshare": (272, 97),
    "clone": (56, 220), "clone3": (435, 435), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "fsopen": (430, 430),
    "open_tree": (428, 428), "chroot": (161, 51), "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "perf_event_open": (298, 241), "bpf": (321, 280), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "syslog": (103, 116), "prlimit64": (302, 261), "openat2": (437, 437), "fanotify_init": (300, 262), "mknodat": (259, 33),
}


def call(name, *arguments):
    """Make a system call. Return its result, or raise an OSError."""
    number = NUMBERS[name][0 if X86 else 1]
    as_words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = LIBC.syscall(ctypes.c_long(number), *as_words)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


def outside():
    return int(os.environ["OUTSIDE"])


def port(name):
    return int(os.environ[name])


# --- other processes ---

def trace_a_child():
    child = os.fork()
    if child == 0:
        signal.pause()
    try:
        call("ptrace", 0x4206, child, 0, 0)  # PTRACE_SEIZE
    finally:
        os.kill(child, signal.SIGKILL)


def trace_outside():
    call("ptrace", 0x4206, outside(), 0, 0)


def read_memory_outside():
    with open(f"/proc/{outside()}/maps") as maps:
        address = int(maps.readline().split("-")[0], 16)
    move_memory("process_vm_readv", outside(), address)


def read_memory_by_call():
    target = ctypes.create_string_buffer(8)
    move_memory("process_vm_readv", os.getpid(), ctypes.addressof(target))


def write_memory_by_call():
    target = ctypes.create_string_buffer(8)
    move_memory("process_vm_writev", os.getpid(), ctypes.addressof(target))


def move_memory(name, process, address):
    own = ctypes.create_string_buffer(8)
    local = (ctypes.c_size_t * 2)(ctypes.addressof(own), 8)
    remote = (ctypes.c_size_t * 2)(address, 8)
    call(name, process, local, 1, remote, 1, 0)


def take_a_descriptor():
    call("pidfd_getfd", call("pidfd_open", os.getpid(), 0), 0, 0)


def compare_processes():
    call("kcmp", os.getpid(), os.getpid(), 0, 0, 0)


def signal_by_descriptor():
    call("pidfd_send_signal", call("pidfd_open", outside(), 0), 0, 0, 0)


def signal_a_thread():
    call("tgkill", outside(), outside(), 0)


def queue_a_signal():
    call("rt_sigqueueinfo", outside(), 0, struct.pack("iii", 0, 0, -1).ljust(128, b"\0"))


def signal_the_agent():
    os.kill(int(os.environ["AGENT"]), 0)


def limit_outside():
    call("prlimit64", outside(), 7, 0, ctypes.create_string_buffer(16))


def slow_outside():
    os.setpriority(os.PRIO_PROCESS, outside(), 19)


def bind_outside_to_a_processor():
    os.sched_setaffinity(outside(), {min(os.sched_getaffinity(0))})


# --- the kernel ---

def ring():
    call("io_uring_setup", 4, ctypes.create_string_buffer(120))


def page_faults():
    call("userfaultfd", 1 | os.O_CLOEXEC)


def performance_counters():
    # perf_event_attr: software, task clock, user space only
    attributes = struct.pack("=IIQQQQQ", 1, 64, 1, 0, 0, 0, (1 << 5) | (1 << 6)).ljust(64, b"\0")
    call("perf_event_open", attributes, 0, -1, -1, 0)


def add_a_key():
    call("add_key", b"user\0", b"escape\0", b"x", 1, -3)


def keyring():
    call("keyctl", 0, -3, 1)


def bpf():
    call("bpf", 0, struct.pack("IIIII", 2, 4, 4, 1, 0).ljust(72, b"\0"), 72)


def kernel_log():
    call("syslog", 3, ctypes.create_string_buffer(4096), 4096)


def watch_files():
    call("fanotify_init", 0, os.O_RDONLY)


def other_architecture():
    """Call getpid through the kernel's 32-bit entry point."""
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # mov eax, 20; int 0x80; ret
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    assert ctypes.CFUNCTYPE(ctypes.c_int)(address)() > 0


def setuid_file():
    os.close(os.open("setuid", os.O_CREAT | os.O_WRONLY, 0o755))
    os.chmod("setuid", 0o4755)
    assert os.stat("setuid").st_mode & 0o4000


def setuid_file_at_once():
    how = struct.pack("QQQ", os.O_CREAT | os.O_WRONLY, 0o4755, 0)
    os.close(call("openat2", -100, b"setuid\0", how, len(how)))
    assert os.stat("setuid").st_mode & 0o4000


def setuid_node():
    call("mknodat", -100, b"setuid\0", 0o104755, 0)
    assert os.stat("setuid").st_mode & 0o4000


# --- namespaces and mounts ---

NEW_USER, NEW_MOUNT, NEW_NET = 0x10000000, 0x00020000, 0x40000000


def new_users():
    call("unshare", NEW_USER)


def new_users_by_clone():
    child = call("clone", NEW_USER | signal.SIGCHLD, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)


def new_users_by_clone3():
    child = call("clone3", struct.pack("QQQQQQQQ", NEW_USER, 0, 0, 0, signal.SIGCHLD, 0, 0, 0), 64)
    if child == 0:
        os._exit(0)


def mount_in_own_namespace():
    call("unshare", NEW_USER | NEW_MOUNT)
    call("mount", b"none\0", b"/\0", 0, 0x4000 | 0x40000, 0)


def network_in_own_namespace():
    call("unshare", NEW_USER | NEW_NET)


def file_system():
    call("fsopen", b"tmpfs\0", 0)


def copy_of_a_tree():
    call("open_tree", -100, b"/\0", 1)


def other_root():
    call("chroot", b"/\0")


def network_outside():
    call("setns", os.open(f"/proc/{outside()}/ns/net", os.O_RDONLY), 0)


def file_by_handle():
    handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0), 136)
    call("name_to_handle_at", -100, b"/etc/hosts\0", handle, ctypes.byref(ctypes.c_int()), 0)
    call("open_by_handle_at", os.open("/etc", os.O_RDONLY), handle, os.O_RDONLY)


# --- networks ---

def answers(family, kind, address, protocol=0):
    with socket.socket(family, kind, protocol) as s:
        s.settimeout(0.5)
        s.connect(address)
        s.send(b"ping")
        assert s.recv(9)


def tcp():
    answers(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", port("TCP")))


def tcp6():
    answers(socket.AF_INET6, socket.SOCK_STREAM, ("::1", port("TCP6")))


def multipath_tcp():
    answers(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", port("TCP")), 262)


def tcp_in_one_go():
    with socket.socket() as s:
        s.sendto(b"ping", 0x20000000, ("127.0.0.1", port("TCP")))  # MSG_FASTOPEN
        s.settimeout(0.5)
        assert s.recv(9)


def udp():
    answers(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", port("UDP")))


def udp6():
    answers(socket.AF_INET6, socket.SOCK_DGRAM, ("::1", port("UDP6")))


def family(number, kind=socket.SOCK_DGRAM, protocol=0):
    socket.socket(number, kind, protocol).close()


def virtual_machine_sockets():
    family(40, socket.SOCK_STREAM)


def kernel_events():
    family(16, socket.SOCK_RAW, 15)


def kernel_sockets():
    family(16, socket.SOCK_RAW, 4)


def kernel_netfilter():
    family(16, socket.SOCK_RAW, 12)


def packets():
    family(17, socket.SOCK_RAW, 0x0300)


def raw_packets_outside():
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, 1) as s:
        s.settimeout(0.5)
        s.sendto(struct.pack("!BBHHH", 8, 0, 0xF7FF, 0, 0), ("127.0.0.1", 0))
        s.recv(99)
        assert os.path.exists(f"/proc/{outside()}/stat")  # otherwise, the loopback interface is a private one


# --- Unix sockets ---

def unix_stream():
    answers(socket.AF_UNIX, socket.SOCK_STREAM, os.environ["UNIX"])


def unix_datagram():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(b"ping", os.environ["UNIX_DATAGRAM"])


def unix_datagram_from_a_pair():
    with socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0] as s:
        s.sendto(b"ping", os.environ["UNIX_DATAGRAM"])


def unix_by_a_link():
    os.symlink(os.environ["UNIX"], "link.sock")
    answers(socket.AF_UNIX, socket.SOCK_STREAM, "link.sock")


def unix_abstract():
    answers(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + os.environ["ABSTRACT"])


# --- terminals and memory ---

def type_into_a_terminal():
    master, slave = os.openpty()
    if os.fork() == 0:
        os.setsid()
        fcntl.ioctl(slave, 0x540E, 0)  # TIOCSCTTY
        fcntl.ioctl(slave, 0x5412, b"x")  # TIOCSTI
        os._exit(0)
    assert os.wait()[1] == 0


def shared_memory():
    LIBC.shmat.restype = ctypes.c_void_p
    address = LIBC.shmat(int(os.environ["SHARED"]), None, 0)
    assert address not in (None, ctypes.c_void_p(-1).value)


# --- files ---

def file_without_a_name():
    """Create a file without a name in the work tree and link it elsewhere."""
    made = os.open(".", os.O_TMPFILE | os.O_WRONLY, 0o600)
    os.link(f"/proc/self/fd/{made}", os.environ["HOME"] + "/other/linked", src_dir_fd=0)


def rename_by_descriptor():
    here, there = os.open(".", os.O_RDONLY), os.open(os.environ["HOME"] + "/other", os.O_PATH)
    os.close(os.open("renamed", os.O_CREAT | os.O_WRONLY))
    os.rename("renamed", "renamed", src_dir_fd=here, dst_dir_fd=there)


def climb_by_descriptor():
    up = os.open("..", os.O_PATH)
    assert os.read(os.open("other/src.rs", os.O_RDONLY, dir_fd=up), 9)


def attribute_outside():
    os.setxattr(os.environ["HOME"] + "/other/src.rs", "user.escape", b"x")


def own_files_device():
    os.close(os.open("/dev/fuse", os.O_RDWR))


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("escaped")
