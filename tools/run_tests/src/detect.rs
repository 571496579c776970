//! Detects the command that runs a repository's tests by looking at its files. Nothing is executed.
//!
//! Manifests are checked first, in a fixed order, then test files, then the targets of a Makefile.
//! If there is no manifest, one search through at most [`DIRECTORIES`] folders finds the test
//! files.

use std::{
    ffi::OsStr,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// Maximum number of folders searched for test files if there is no manifest.
const DIRECTORIES: usize = 48;

/// Maximum depth of that search. This is enough to find `packages/NAME/tests`.
const DEPTH: usize = 3;

/// Number of bytes read from the start of a file.
const GLANCE: u64 = 64 << 10;

/// Number of test files read to detect the Python test runner.
const SAMPLES: usize = 20;

/// A command that runs tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestCommand {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The environment variables it needs.
    pub env: Vec<(String, String)>,
    /// Where the command comes from, such as "Cargo.toml". Shown to the user.
    pub why: String,
}

impl TestCommand {
    fn new<const N: usize>(argv: [&str; N], why: &str) -> Self {
        Self { argv: argv.map(str::to_owned).to_vec(), env: Vec::new(), why: why.to_owned() }
    }

    /// Creates the command that runs a shell line, such as the value of `--verify`.
    #[must_use]
    pub fn shell(line: &str, why: &str) -> Self {
        Self::new(["sh", "-c", line], why)
    }

    /// Returns the command as a person would type it.
    #[must_use]
    pub fn display(&self) -> String {
        match self.argv.as_slice() {
            [sh, c, line] if sh == "sh" && c == "-c" => line.clone(),
            argv => argv.iter().map(|a| quoted(a)).collect::<Vec<_>>().join(" "),
        }
    }
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_-./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Finds the test command of the repository at `root`. `search_path` is the `PATH` that commands
/// will run with.
#[must_use]
pub fn detect(root: &Path, search_path: &OsStr) -> Option<TestCommand> {
    let repository = Repository { root, search_path };
    repository.manifest().or_else(|| repository.test_files()).or_else(|| repository.makefile())
}

struct Repository<'a> {
    root: &'a Path,
    search_path: &'a OsStr,
}

/// Test files, recognized by their names.
#[derive(Default)]
struct TestFiles {
    python: Vec<PathBuf>,
    node: bool,
    go: bool,
}

impl Repository<'_> {
    fn has(&self, name: &str) -> bool {
        self.root.join(name).exists()
    }

    fn text(&self, name: &str) -> Option<String> {
        glance(&self.root.join(name))
    }

    fn program(&self, name: &str) -> bool {
        std::env::split_paths(self.search_path).any(|dir| dir.is_absolute() && dir.join(name).is_file())
    }

    fn manifest(&self) -> Option<TestCommand> {
        if self.has("Cargo.toml") {
            return Some(TestCommand::new(["cargo", "test", "--no-fail-fast"], "Cargo.toml"));
        }
        if self.has("go.mod") {
            return Some(TestCommand::new(["go", "test", "./..."], "go.mod"));
        }
        if let Some(found) = self.text("package.json").and_then(|text| self.package_json(&text)) {
            return Some(found);
        }
        if let Some(found) = self.python_manifest() {
            return Some(found);
        }
        if self.has("pom.xml") {
            let maven = if self.has("mvnw") { "./mvnw" } else { "mvn" };
            return Some(TestCommand::new([maven, "-B", "test"], "pom.xml"));
        }
        if let Some(name) = ["build.gradle", "build.gradle.kts"].into_iter().find(|n| self.has(n)) {
            let gradle = if self.has("gradlew") { "./gradlew" } else { "gradle" };
            return Some(TestCommand::new([gradle, "--console=plain", "test"], name));
        }
        if let Some(name) = self.dotnet() {
            return Some(TestCommand::new(["dotnet", "test"], &name));
        }
        if self
            .text("CMakeLists.txt")
            .is_some_and(|t| t.contains("enable_testing") || t.contains("include(CTest)"))
        {
            let line =
                "cmake -S . -B build && cmake --build build && ctest --test-dir build --output-on-failure";
            return Some(TestCommand::shell(line, "CMakeLists.txt"));
        }
        None
    }

    /// Returns the command for the `test` script. If there is no script, or only npm's placeholder,
    /// returns the command for the test runner that the package uses: vitest or jest.
    fn package_json(&self, text: &str) -> Option<TestCommand> {
        let package: Value = serde_json::from_str(text).ok()?;
        let script = package["scripts"]["test"].as_str().filter(|s| !s.contains("no test specified"));
        if script.is_some() {
            let manager = self.package_manager(&package);
            return Some(TestCommand::new([manager, "test"], "the test script in package.json"));
        }
        let depends = |name: &str| {
            ["dependencies", "devDependencies"].iter().any(|kind| package[*kind].get(name).is_some())
        };
        if depends("vitest") {
            return Some(TestCommand::new(["npx", "vitest", "run"], "vitest in package.json"));
        }
        if depends("jest") || package.get("jest").is_some() {
            return Some(TestCommand::new(["npx", "jest"], "jest in package.json"));
        }
        None
    }

    fn package_manager(&self, package: &Value) -> &'static str {
        let named = package["packageManager"].as_str().unwrap_or_default();
        let wanted = if named.starts_with("pnpm") || self.has("pnpm-lock.yaml") {
            "pnpm"
        } else if named.starts_with("yarn") || self.has("yarn.lock") {
            "yarn"
        } else {
            "npm"
        };
        if self.program(wanted) { wanted } else { "npm" }
    }

    fn python_manifest(&self) -> Option<TestCommand> {
        let configured = self.has("pytest.ini")
            || self.has("conftest.py")
            || self.has("tests/conftest.py")
            || self.text("pyproject.toml").is_some_and(|t| t.contains("[tool.pytest"))
            || self.text("setup.cfg").is_some_and(|t| t.contains("[tool:pytest]"))
            || self.text("tox.ini").is_some_and(|t| t.contains("[pytest]"));
        configured.then(|| self.pytest("a pytest configuration"))
    }

    fn dotnet(&self) -> Option<String> {
        let mut names: Vec<_> = fs::read_dir(self.root)
            .ok()?
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| [".sln", ".slnx", ".csproj", ".fsproj"].iter().any(|end| name.ends_with(end)))
            .collect();
        names.sort();
        names.pop()
    }

    fn makefile(&self) -> Option<TestCommand> {
        let name = ["GNUmakefile", "makefile", "Makefile"].into_iter().find(|n| self.has(n))?;
        let text = self.text(name)?;
        let target = ["test", "tests", "check"].into_iter().find(|target| {
            text.lines().any(|line| {
                line.strip_prefix(target)
                    .map(str::trim_start)
                    .is_some_and(|rest| rest.starts_with(':') && !rest.starts_with(":="))
            })
        })?;
        Some(TestCommand::new(["make", target], &format!("the {target} target in {name}")))
    }

    fn test_files(&self) -> Option<TestCommand> {
        let files = self.find_test_files();
        if !files.python.is_empty() {
            return Some(self.python(&files.python));
        }
        if files.node && !self.has("node_modules/.bin/vitest") {
            return Some(TestCommand::new(["node", "--test"], "test files for node"));
        }
        if files.go {
            return Some(TestCommand::new(["go", "test", "./..."], "test files for go"));
        }
        None
    }

    fn find_test_files(&self) -> TestFiles {
        let mut found = TestFiles::default();
        let mut directories = std::collections::VecDeque::from([(self.root.to_owned(), 0)]);
        for _ in 0..DIRECTORIES {
            let Some((directory, depth)) = directories.pop_front() else { break };
            let Ok(entries) = fs::read_dir(&directory) else { continue };
            let mut entries: Vec<_> = entries.flatten().collect();
            entries.sort_by_key(fs::DirEntry::file_name);
            for entry in entries {
                let (Ok(name), Ok(kind)) = (entry.file_name().into_string(), entry.file_type()) else {
                    continue;
                };
                if kind.is_dir() {
                    let skipped = name.starts_with('.')
                        || matches!(
                            name.as_str(),
                            "node_modules" | "target" | "venv" | "__pycache__" | "vendor" | "dist" | "build"
                        );
                    if depth < DEPTH && !skipped {
                        directories.push_back((entry.path(), depth + 1));
                    }
                } else if kind.is_file() {
                    found.add(&name, entry.path(), &directory);
                }
            }
        }
        found
    }

    /// Chooses `pytest` if any test file is written for it, or if none is written for `unittest`.
    /// Otherwise, chooses `unittest`.
    fn python(&self, files: &[PathBuf]) -> TestCommand {
        let texts: Vec<_> = files.iter().take(SAMPLES).filter_map(|f| glance(f)).collect();
        let for_pytest = |text: &String| {
            text.contains("import pytest")
                || text.contains("from pytest")
                || text.starts_with("def test_")
                || text.contains("\ndef test_")
        };
        if texts.iter().any(for_pytest) || !texts.iter().any(|t| t.contains("unittest")) {
            return self.pytest("test files for pytest");
        }
        let mut argv = vec![self.interpreter(), "-m".to_owned(), "unittest".to_owned()];
        let directory =
            files[0].parent().and_then(|d| d.strip_prefix(self.root).ok()).unwrap_or(Path::new(""));
        let suffixed = files
            .iter()
            .all(|f| f.file_name().and_then(OsStr::to_str).is_some_and(|n| n.ends_with("_test.py")));
        if directory != Path::new("") || suffixed {
            argv.push("discover".to_owned());
        }
        if let Some(directory) = directory.to_str().filter(|d| !d.is_empty()) {
            argv.extend(["-s".to_owned(), directory.to_owned()]);
            if self.has(&format!("{directory}/__init__.py")) {
                argv.extend(["-t".to_owned(), ".".to_owned()]);
            }
        }
        if suffixed {
            argv.extend(["-p".to_owned(), "*_test.py".to_owned()]);
        }
        TestCommand { argv, env: self.python_path(), why: "test files for unittest".to_owned() }
    }

    fn pytest(&self, why: &str) -> TestCommand {
        let interpreter = self.interpreter();
        let arguments = ["-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider"].map(str::to_owned);
        TestCommand {
            argv: [vec![interpreter], arguments.to_vec()].concat(),
            env: self.python_path(),
            why: why.to_owned(),
        }
    }

    /// Returns the Python interpreter of a virtual environment in the repository or, if there is
    /// none, the interpreter on `PATH`.
    fn interpreter(&self) -> String {
        let own = [".venv/bin/python", "venv/bin/python"].into_iter().find(|p| self.has(p));
        own.or_else(|| ["python3", "python"].into_iter().find(|p| self.program(p)))
            .unwrap_or("python3")
            .to_owned()
    }

    /// If `src` contains a package or a module, returns the variable that makes it importable
    /// without installing it.
    fn python_path(&self) -> Vec<(String, String)> {
        let has_package = fs::read_dir(self.root.join("src")).into_iter().flatten().flatten().any(|e| {
            e.path().join("__init__.py").exists() || e.path().extension().is_some_and(|x| x == "py")
        });
        if has_package { vec![("PYTHONPATH".to_owned(), "src".to_owned())] } else { Vec::new() }
    }
}

impl TestFiles {
    fn add(&mut self, name: &str, path: PathBuf, directory: &Path) {
        if let Some(stem) = name.strip_suffix(".py") {
            if stem.starts_with("test_") || stem.ends_with("_test") || stem == "test" || stem == "tests" {
                self.python.push(path);
            }
        } else if name.ends_with("_test.go") {
            self.go = true;
        } else if let Some((stem, "js" | "mjs" | "cjs")) = name.rsplit_once('.') {
            let in_test_folder = directory.file_name().is_some_and(|d| d == "test");
            self.node |= stem.ends_with(".test")
                || stem.ends_with("_test")
                || stem.ends_with("-test")
                || in_test_folder;
        }
    }
}

/// Reads the start of a regular file as text.
fn glance(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    if !path.is_file() {
        return None; // opening a FIFO would block
    }
    fs::File::open(path).ok()?.take(GLANCE).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
