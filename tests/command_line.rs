//! Flags, help, misuse, and the exit codes of it.

use std::process::Stdio;

use crate::support::{World, snapshot};

#[test]
fn help_names_the_commands() {
    snapshot!(World::new().observe(&["--help"]), @r"
    exit 0
    --- stdout
    An autonomous coding agent for DeepSeek and other open models

    Usage: agent [OPTIONS] <COMMAND>

    Commands:
      run          Work on a task in this repository until it is done and verified
      resume       Go on with a run that was killed, interrupted, or left by its server
      replay       Run a session again offline, with the recorded answers of the model, and show the
                   first difference
      batch        Work on many tasks, unattended
      patch        Apply a patch, in any form a model writes, all of it or nothing
      diff         Show what a session changed
      apply        Bring what a dry run did to the repository
      undo         Put back what a session changed
      sessions     Look at past runs
      models       Look after the models of an Ollama server
      tools        Look at the tools a model is given, or call one by hand
      parse        Show what the agent would make of a model's output
      sandbox      Run a command confined as those of a run are
      doctor       Check that a run could start, and say how to mend what is wrong
      config       Look at the settings
      completions  Print a completion script for a shell
      help         Print this message or the help of the given subcommand(s)

    Options:
      -C <DIR>       Work as if started in this folder
      -h, --help     Print help
      -V, --version  Print version

    Settings come from flags, AGENT_… variables, .agent.toml in the repository, the user's config.toml
    and defaults: see `agent config show`. AGENT_LOG=debug prints diagnostics. AGENT_PAGER, else PAGER,
    shows what is longer than the terminal.
    ");
}

#[test]
fn help_of_run_lists_every_flag_and_exit_code() {
    snapshot!(World::new().observe(&["run", "--help"]), @r"
    exit 0
    --- stdout
    Work on a task in this repository until it is done and verified

    Usage: agent run [OPTIONS] [TASK]

    Arguments:
      [TASK]  The task; `-` reads it from standard input

    Options:
      -C <DIR>                Work as if started in this folder
          --task-file <FILE>  Read the task from a file
          --dry-run[=<HOW>]   Work beside the repository, tests included, and leave it as it is: shows
                              the changes, to be applied with `agent apply`; plan stops before the first
                              command [possible values: run, plan]
          --preview <FORM>    How the changes of a dry run are shown [default: words on a terminal, else
                              the patch] [possible values: words, side-by-side, unified, none]
          --json              Print the session's events on standard output as they happen, one JSON
                              object a line
      -q, --quiet             Show nothing on the way, only how it ended
      -h, --help              Print help

    Model:
      -m, --model <MODEL>               ollama:NAME, deepseek:NAME, openai:NAME, replay:FILE or a bare
                                        NAME; without it, what is there
          --base-url <URL>              The server's address, in place of OLLAMA_HOST or OPENAI_BASE_URL
          --api-key-file <FILE>         Read the server's API key from a file
          --header <NAME: VALUE>        Send this HTTP header with every request to the server; may be
                                        repeated
          --first-byte-seconds <N>      Wait this long for an answer to begin; without it, 1800 for
                                        local servers and 300 for hosted ones
          --pull                        Pull the model without asking when Ollama does not have it
          --num-ctx <TOKENS>            The context window to ask for; without it, the model's own up to
                                        32768
          --temperature <T>             Sampling temperature of the first try; later ones vary it when
                                        the model repeats itself [default: 0]
          --max-answer-tokens <TOKENS>  The most one answer may have, thinking included [default: 4096]
          --think[=<LEVEL>]             Whether, or how hard, the model thinks before it answers
                                        [default: auto] [possible values: auto, on, off, low, medium,
                                        high]

    Work:
          --verify <CMD>      The command that must succeed at the end; without it, the detected test
                              command
          --dialect <FORM>    The form in which the model is asked to write edits [default: auto]
                              [possible values: auto, json, whole-file]
          --edit-form <FORM>  The form of edits in JSON calls that the model is told of; all are taken.
                              auto: by its family [default: auto] [possible values: auto, all, unified,
                              unified-lines, envelope, envelope-lines, search-replace,
                              search-replace-lines, edits, edits-lines, whole-file, whole-file-lines]
          --cut <WHEN>        Cut the answer after its first call, or read on for more; auto: first for
                              local models [default: auto] [possible values: auto, first, read-on]

    Budgets:
          --max-turns <N>       Requests to the model [default: 40]
          --max-tokens <N>      Prompt and generated tokens together
          --max-seconds <N>     Wall-clock time [default: 3600]
          --max-cost <DOLLARS>  Money, where the server's prices are known

    Commands:
          --dangerously-no-sandbox     Run commands with all your rights and the network: only where
                                       something else confines them
          --no-mask-secrets            Show keys, tokens and passwords to the model, the journal and the
                                       screen as they are
          --command-read-only          Commands cannot write the work tree, only their temporary folder
          --allow-read <PATHS>         What else commands may read: paths that begin with / or ~/,
                                       separated by colons
          --allow-write <PATHS>        What else commands may write
          --dangerously-allow-network  Commands reach the network, and what they can read can leave
          --allow-host <HOST>          Hosts that commands may reach, separated by commas: NAME, *.NAME
                                       or an address, with :PORT where it is not 443 or 80
          --command-seconds <N>        The most one command or test run may take [default: 300]
          --command-memory <MIB>       The memory that all processes of a command may use; without it,
                                       three quarters of the machine's
          --command-processes <N>      The processes and threads that a command may have at a time
                                       [default: 4096]
          --command-file-size <MIB>    The largest file that a command may write [default: 8192]

    Exit codes:
        0  done, and the verification passed
        1  not verified: no check to run, or it does not pass; or nothing was changed
        2  refused or misused: bad flags, settings or files, no sandbox
        3  gave up: the model was getting nowhere
        4  a budget was reached: turns, tokens, seconds or cost
        5  the model or its server is unavailable
      130  interrupted by Ctrl-C or a termination signal
    ");
}

#[test]
fn nothing_said_is_answered_with_help_and_a_misuse_code() {
    let seen = World::new().observe(&[]);
    assert!(seen.starts_with("exit 2\n--- stderr\n") && seen.contains("Usage: agent"), "{seen}");
}

#[test]
fn the_version_is_one_line() {
    snapshot!(World::new().observe(&["--version"]), @r"
    exit 0
    --- stdout
    agent [VERSION]
    ");
}

#[test]
fn a_misspelt_flag_is_answered_with_the_right_one() {
    snapshot!(World::new().observe(&["run", "--max-turn", "3", "x"]), @r"
    exit 2
    --- stderr
    error: unexpected argument '--max-turn' found

      tip: a similar argument exists: '--max-turns'

    Usage: agent run --max-turns <N> [TASK]

    For more information, try '--help'.
    ");
}

#[test]
fn a_bad_value_is_answered_with_what_would_be_good() {
    snapshot!(World::new().observe(&["run", "--max-turns", "none", "x"]), @r"
    exit 2
    --- stderr
    error: invalid value 'none' for '--max-turns <N>': must be a whole number from 1

    For more information, try '--help'.
    ");
    snapshot!(World::new().observe(&["run", "--cut", "sometimes", "x"]), @r"
    exit 2
    --- stderr
    error: invalid value 'sometimes' for '--cut <WHEN>'
      [possible values: auto, first, read-on]

    For more information, try '--help'.
    ");
}

#[test]
fn a_task_is_needed_and_only_one() {
    snapshot!(World::new().observe(&["run"]), @r"
    exit 2
    --- stderr
    error: the following required arguments were not provided:
      <TASK>

    Usage: agent run <TASK>

    For more information, try '--help'.
    ");
    snapshot!(World::new().observe(&["run", "a", "--task-file", "b"]), @r"
    exit 2
    --- stderr
    error: the argument '[TASK]' cannot be used with '--task-file <FILE>'

    Usage: agent run <TASK>

    For more information, try '--help'.
    ");
    snapshot!(World::new().observe(&["run", "  "]), @r"
    exit 2
    --- stderr
    error: the task is empty; say what is to be done
    ");
    snapshot!(World::new().observe(&["run", "--task-file", "missing.md"]), @r"
    exit 2
    --- stderr
    error: cannot read the task from missing.md: No such file or directory (os error 2)
    ");
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    snapshot!(World::new().observe(&["-C", "nowhere", "config", "show"]), @r"
    exit 2
    --- stderr
    error: cannot work in nowhere: No such file or directory (os error 2)
    ");
}

#[test]
fn a_whole_home_is_nobodys_project() {
    let world = World::new();
    let output = world.agent(&["run", "tidy up"]).current_dir(world.home()).output().unwrap();
    snapshot!(world.tell(&output), @r"
    exit 2
    --- stderr
    error: [WORLD]/home is no repository to work in
    hint: start in the folder of a project, or name it with -C DIR
    ");
}

#[test]
fn completions_are_made_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let seen = World::new().observe(&["completions", shell]);
        assert!(seen.starts_with("exit 0\n--- stdout\n"), "{shell}: {seen}");
        assert!(seen.contains("dangerously-no-sandbox"), "{shell} knows the flags");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let world = World::new();
    for args in [&["tools", "schema"][..], &["run", "--help"], &["completions", "bash"], &["config", "show"]]
    {
        let mut child = world.agent(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
