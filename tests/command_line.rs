//! Flags, help, usage errors and their exit codes.

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
      ask          Answer a question about this repository without changing anything
      resume       Resume a run that was killed or interrupted, or that lost its server
      replay       Replay a session offline with the model's recorded answers, and show the first
                   difference
      acp          Serve an editor over stdin and stdout, using the Agent Client Protocol
      batch        Run many tasks unattended
      worker       Take tasks from a queue and run them
      report       Write a batch's results and trajectories to one HTML file
      compare      Compare the results of two batches
      patch        Apply a patch atomically, in any format that models write
      diff         Show the changes made in a session
      apply        Apply the changes from a dry run
      undo         Undo the changes made in a session
      sessions     List, show, export and remove past runs
      models       List, show, download and delete models
      tools        List the tools available to the model, or call one
      mcp          List, test and approve MCP servers, or serve other agents
      parse        Show which tool calls a run would find in a model's output
      sandbox      Run a command in the same sandbox that a run uses
      doctor       Check whether a run can start, and explain how to fix any problems
      config       Show the settings
      completions  Print a completion script for a shell
      help         Print this message or the help of the given subcommand(s)

    Options:
      -C <DIR>       Change to DIR before doing anything
      -h, --help     Print help
      -V, --version  Print version

    Settings come from flags, AGENT_… variables, .agent.toml in the repository, your config.toml, and
    defaults, in this order; `agent config show` shows them. AGENT_LOG=debug prints diagnostics.
    AGENT_PAGER or PAGER names the pager for output longer than the terminal.
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
      [TASK]  The task; `-` reads it from stdin

    Options:
      -C <DIR>                    Change to DIR before doing anything
          --task-file <FILE>      Read the task from a file
          --template <NAME>       Create the task from the template NAME.md in .agents/templates or in
                                  your settings folder; the arguments provide its values: KEY=VALUE …
          --issue <FILE|URL>      Resolve the issue in this file (JSON as printed by `gh issue view
                                  --json`; `-` is stdin) or at this URL (fetched with `gh` or `glab`);
                                  TASK is appended to it
          --worktree[=<NAME>]     Work in a worktree beside the repository, on the new branch
                                  agent/NAME, and leave it there [default NAME: the session's id]
          --commit                Commit the changes if the run ends as verified
          --image <FILE>          Show this image to the model along with the task (needs a model that
                                  accepts images); may be repeated
          --dry-run[=<HOW>]       Work on an overlay or copy of the repository, and show the changes for
                                  `agent apply`; `--dry-run=plan` stops before the first command
                                  [possible values: run, plan]
          --preview <FORMAT>      Show the changes of a dry run in this format [default: words on a
                                  terminal, otherwise unified] [possible values: words, side-by-side,
                                  unified, none]
          --output-schema <FILE>  Make the model return a result that matches the JSON Schema in this
                                  file, and print the result to stdout instead of the patch
      -o, --output <FILE>         Write the result to this file instead of stdout
          --json                  Print the session's events to stdout as they happen, one JSON object
                                  per line
      -q, --quiet                 Show only the result, no progress
      -h, --help                  Print help

    Model:
      -m, --model <MODEL>                 Use this model: ollama:NAME, deepseek:NAME, openai:NAME,
                                          replay:FILE or NAME [default: auto-detect]
          --base-url <URL>                Connect to the server at this address instead of OLLAMA_HOST
                                          or OPENAI_BASE_URL
          --api-key-file <FILE>           Read the server's API key from this file
          --header <NAME: VALUE>          Send this HTTP header with every request to the server; may be
                                          repeated
          --first-byte-seconds <SECONDS>  Wait this long for an answer to start [default: 1800 for local
                                          servers, 300 for hosted ones]
          --pull                          Pull a missing model without asking
          --num-ctx <TOKENS>              Request a context window of this size [default: the model's
                                          own, up to 32768; embedded: up to 16384]
          --gpu-layers <N>                Run this many layers of an embedded model on a GPU, if the
                                          engine was built for one [default: 0]
          --temperature <T>               Set the sampling temperature of the first attempt; retries
                                          vary it if the model repeats itself [default: from the model's
                                          profile, usually 0]
          --max-answer-tokens <TOKENS>    Limit each answer to this many tokens, including thinking
                                          [default: 4096]
          --think[=<LEVEL>]               Turn thinking on or off, or set its effort [default: auto]
                                          [possible values: auto, on, off, low, medium, high, max]
          --constrain[=<WHEN>]            Restrict the model to valid tool calls, if the server can
                                          enforce it; `auto` uses the model's profile [default: auto]
                                          [possible values: auto, on, off]

    Work:
          --verify <CMD>          Run this command to decide whether the task is done [default: the
                                  detected test command]
          --approach <HOW>        Let the model call tools, or show it files and ask it to return them
                                  whole; `auto` uses the model's profile [default: auto] [possible
                                  values: auto, tools, whole-file]
          --edit-format <FORMAT>  Tell the model to write edits in this format (the agent understands
                                  every format); `auto` uses the model's profile [default: auto]
                                  [possible values: auto, edits, unified, envelope, search-replace,
                                  whole-file]
          --cut <WHEN>            Stop reading an answer after its first call (`first`) or at its end
                                  (`read-on`); `auto` means `first` for local models [default: auto]
                                  [possible values: auto, first, read-on]
          --symbols <WHAT>        Show a code map if the task does not name a file (`map`), offer a tool
                                  that looks up names (`tool`), or both (`all`) [default: off] [possible
                                  values: off, map, tool, all]
          --attempts <N>          Try the task up to this many times, until the tests pass; if they
                                  never pass, keep the best try [default: 1]
          --escalate <MODEL>      If no try passes the tests, try once more with this model, which gets
                                  its own budgets
          --fallback <MODEL>      Continue with this model if the current model's server is unavailable

    Tools:
          --mcp-tools <PATTERN>  Let the model use the MCP tools that match this pattern (SERVER__TOOL,
                                 with * as a wildcard); may be repeated [default: no MCP server is
                                 started]

    Budgets:
          --max-turns <N>          Stop after this many requests to the model [default: 40]
          --max-tokens <N>         Stop after this many tokens (prompts and answers together)
          --max-seconds <SECONDS>  Stop after this much time [default: 3600]
          --max-cost <DOLLARS>     Stop when the cost reaches this amount, if the server's prices are
                                   known

    Commands:
          --dangerously-no-sandbox     Run commands with all your permissions and full network access;
                                       use only inside another sandbox
          --no-mask-secrets            Show keys, tokens and passwords to the model, in the journal and
                                       on the screen
          --command-read-only          Make the work tree read-only for commands; they can still write
                                       to their temporary folder
          --env <NAME[=VALUE]>         Set an environment variable for commands and tests; NAME alone
                                       passes on your value; may be repeated
          --allow-read <PATHS>         Let commands read these paths too (colon-separated; each must be
                                       absolute or start with ~/)
          --allow-write <PATHS>        Let commands write these paths too
          --dangerously-allow-network  Give commands full network access; they can send out anything
                                       they can read
          --allow-host <HOST>          Let commands reach this host: NAME, *.NAME or an address, with
                                       :PORT if it is not 443 or 80; may be repeated
          --command-seconds <SECONDS>  Stop a command or test run after this much time [default: 300]
          --command-memory <MIB>       Limit the memory of a command and its child processes [default:
                                       three quarters of the machine's]
          --command-processes <N>      Limit the processes and threads of a command [default: 4096]
          --command-file-size <MIB>    Limit the size of each file that a command writes [default: 8192]

    Exit codes:
        0  done, and the verification passed
        1  not verified: the check failed, there is no check, or nothing was changed
        2  refused: invalid flags, settings or files, or no sandbox
        3  gave up: the model made no progress
        4  reached a budget: turns, tokens, seconds or cost
        5  the model or its server is unavailable
      130  interrupted by Ctrl-C or a termination signal
    ");
}

#[test]
fn running_without_arguments_prints_help_and_exits_2() {
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
fn the_error_for_a_misspelled_flag_suggests_the_right_one() {
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
fn the_error_for_an_invalid_value_says_which_values_are_valid() {
    snapshot!(World::new().observe(&["run", "--max-turns", "none", "x"]), @r"
    exit 2
    --- stderr
    error: invalid value 'none' for '--max-turns <N>': must be an integer of at least 1

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
fn exactly_one_task_is_required() {
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
    error: the task is empty; describe what to do
    ");
    snapshot!(World::new().observe(&["run", "--task-file", "missing.md"]), @r"
    exit 2
    --- stderr
    error: cannot read the task from missing.md: No such file or directory (os error 2)
    ");
}

#[test]
fn the_error_for_a_missing_folder_names_it() {
    snapshot!(World::new().observe(&["-C", "nowhere", "config", "show"]), @r"
    exit 2
    --- stderr
    error: cannot change to nowhere: No such file or directory (os error 2)
    ");
}

#[test]
fn a_home_folder_is_not_a_project() {
    let world = World::new();
    let output = world.agent(&["run", "tidy up"]).current_dir(world.home()).output().unwrap();
    snapshot!(world.tell(&output), @r"
    exit 2
    --- stderr
    error: [WORLD]/home is not a project folder
    hint: run the agent in a project folder, or specify one with -C DIR
    ");
}

#[test]
fn completions_exist_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let seen = World::new().observe(&["completions", shell]);
        assert!(seen.starts_with("exit 0\n--- stdout\n"), "{shell}: {seen}");
        assert!(seen.contains("dangerously-no-sandbox"), "the completions for {shell} should have the flags");
    }
}

#[test]
fn a_closed_stdout_is_not_a_failure() {
    let world = World::new();
    for args in [&["tools", "schema"][..], &["run", "--help"], &["completions", "bash"], &["config", "show"]]
    {
        let mut child = world.agent(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn man_pages_are_written_for_every_command() {
    let world = World::new();
    assert_eq!(world.observe(&["man", "pages"]), "exit 0\n");
    assert!(world.read("pages/agent.1").contains(".TH agent 1"));
    assert!(world.read("pages/agent-run.1").contains("max\\-turns"));
}
