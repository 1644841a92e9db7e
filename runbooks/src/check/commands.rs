//! Which arguments a program evaluates as code; no value may be in those.
//!
//! One table by the program's name, and one way of reading its arguments for each kind. Where the table does not know, it
//! allows; where it knows the program but not the argument, it refuses. Programs that start others (`sudo`, `timeout`, `find
//! -exec` …) are looked through.

use crate::template::Template;

/// Why an argument may not hold a value.
pub(super) struct Refusal {
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) help: &'static str,
}

/// How a program treats its arguments.
enum Kind {
    /// `-c CODE`; otherwise the first operand is a script.
    Shell,
    /// Short and long options that take code; otherwise the first operand is a script.
    Code(&'static [char], &'static [&'static str]),
    /// The first operand is a program, unless an option gave it. Options with values, and how many.
    FirstOperand { code: &'static [&'static str], values: &'static [(&'static str, usize)] },
    /// SQL anywhere, except after these options.
    Database,
    /// A remote shell evaluates whatever follows the host.
    Ssh,
    /// Options that name a command, and `host:path`.
    RemoteCopy,
    /// Actions that start a program, up to `;` or `+`.
    Find,
    /// Starts the program after so many operands; options with a value.
    Starts(usize, &'static [&'static str]),
    /// `-c CODE`, for another user.
    User,
    /// Starts some later argument; all of them are looked through.
    Somewhere,
    /// Evaluates all it is given.
    Everything,
    /// Nothing known.
    Other,
}

fn kind(program: &str) -> Kind {
    const AWK: &[(&str, usize)] = &[("-F", 1), ("-v", 1)];
    match program.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-')) {
        "sh" | "bash" | "dash" | "zsh" | "ksh" | "mksh" | "ash" | "rbash" | "fish" | "tcsh" | "csh"
        | "pwsh" => Kind::Shell,
        "python" | "pypy" => Kind::Code(&['c', 'm'], &[]),
        "perl" => Kind::Code(&['e', 'E', 'M', 'm'], &[]),
        "ruby" => Kind::Code(&['e', 'r'], &[]),
        "node" | "nodejs" | "bun" => {
            Kind::Code(&['e', 'p', 'r'], &["--eval", "--print", "--require", "--import", "--loader"])
        }
        "php" => Kind::Code(&['r', 'B', 'R', 'E', 'd'], &["--run", "--define"]),
        "lua" | "luajit" | "Rscript" | "R" | "julia" | "groovy" | "scala" | "osascript" | "elixir"
        | "erl" => Kind::Code(&['e', 'E', 'l'], &["--eval"]),
        "tclsh" | "expect" | "guile" | "sbcl" | "emacs" | "vi" | "vim" | "nvim" | "ed" | "ex" | "gdb"
        | "lldb" => Kind::Everything,
        "awk" | "gawk" | "mawk" | "nawk" | "original-awk" => {
            Kind::FirstOperand { code: &["-f", "-e", "-E", "-i", "-l", "--file", "--source"], values: AWK }
        }
        "sed" | "gsed" => {
            Kind::FirstOperand { code: &["-e", "-f", "--expression", "--file"], values: &[("-l", 1)] }
        }
        "jq" | "yq" | "gojq" | "jaq" => Kind::FirstOperand {
            code: &["-f", "--from-file", "-L"],
            values: &[("--arg", 2), ("--argjson", 2), ("--slurpfile", 2), ("--rawfile", 2), ("--indent", 1)],
        },
        "psql" | "mysql" | "mariadb" | "sqlite" | "sqlplus" | "sqlcmd" | "mongo" | "mongosh"
        | "redis-cli" | "cqlsh" | "clickhouse-client" | "duckdb" | "isql" | "tsql" | "cockroach" => {
            Kind::Database
        }
        "ssh" | "rsh" | "slogin" | "autossh" | "mosh" => Kind::Ssh,
        "scp" | "rsync" | "sftp" => Kind::RemoteCopy,
        "find" => Kind::Find,
        "sudo" => Kind::Starts(
            0,
            &["-u", "-g", "-h", "-p", "-C", "-T", "-r", "-t", "-U", "-R", "-D", "--user", "--group"],
        ),
        "doas" => Kind::Starts(0, &["-u", "-C"]),
        "env" => Kind::Starts(0, &["-u", "-C", "--unset", "--chdir"]),
        "nice" => Kind::Starts(0, &["-n", "--adjustment"]),
        "ionice" => Kind::Starts(0, &["-c", "-n", "--class", "--classdata"]),
        "nohup" | "setsid" | "busybox" | "toybox" | "command" | "exec" | "time" | "unshare" => {
            Kind::Starts(0, &[])
        }
        "stdbuf" => Kind::Starts(0, &["-i", "-o", "-e"]),
        "timeout" => Kind::Starts(1, &["-s", "-k", "--signal", "--kill-after"]),
        "xargs" => Kind::Starts(0, &["-I", "-n", "-P", "-d", "-L", "-s", "-a", "-E"]),
        "flock" => Kind::Starts(1, &["-w", "-E", "--timeout"]),
        "chroot" | "taskset" | "chrt" => Kind::Starts(1, &[]),
        "nsenter" => Kind::Starts(0, &["-t", "-S", "-G", "--target"]),
        "systemd-run" => Kind::Starts(0, &["-u", "-p", "-E", "-M", "-H", "--unit", "--property"]),
        "strace" | "ltrace" => Kind::Starts(0, &["-o", "-e", "-p", "-s"]),
        "su" | "runuser" => Kind::User,
        "docker" | "podman" | "nerdctl" | "kubectl" | "oc" | "lxc" | "machinectl" | "crictl" => {
            Kind::Somewhere
        }
        "eval" | "source" | "parallel" | "watch" | "make" | "gmake" | "at" | "batch" | "crontab" | "tmux"
        | "screen" | "script" | "pdsh" | "pssh" | "clush" | "dsh" | "ansible" | "salt" | "bc" | "dc"
        | "m" => Kind::Everything,
        _ => Kind::Other,
    }
}

fn base(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// Whether the interpreter of a script is a shell.
pub(super) fn is_shell(interpreter: &[String]) -> bool {
    let program = interpreter.iter().find(|word| base(word) != "env").map_or("", |word| base(word));
    matches!(kind(program), Kind::Shell)
}

/// The arguments that hold a value although they must not, with the reason.
pub(super) fn evaluated(args: &[Template], allow_leading_dash: bool) -> Vec<(usize, Refusal)> {
    let mut found = Found { args, refusals: Vec::new() };
    found.command(0, args.len());
    let program = args.first().and_then(Template::is_literal).map_or("", base);
    if allow_leading_dash && found.refusals.is_empty() && !matches!(kind(program), Kind::Other) {
        for at in (1..args.len())
            .filter(|at| args[*at].is_literal().is_none() && args[*at].leading_text().is_empty())
        {
            found.refuse(at, program, "with `allow_leading_dash` a value could be an option that takes code");
        }
    }
    found.refusals.sort_by_key(|(at, _)| *at);
    found.refusals.dedup_by_key(|(at, _)| *at);
    found.refusals
}

struct Found<'a> {
    args: &'a [Template],
    refusals: Vec<(usize, Refusal)>,
}

impl<'a> Found<'a> {
    fn literal(&self, at: usize) -> Option<&'a str> {
        self.args[at].is_literal()
    }

    fn value(&self, at: usize) -> bool {
        self.args[at].is_literal().is_none()
    }

    fn refuse(&mut self, at: usize, program: &str, why: &str) {
        let refusal = Refusal {
            code: "value-becomes-code",
            message: format!("no value may be in this argument of `{program}`: {why}"),
            help: "write a script instead, which takes the value from its environment: `env: { NAME: \"${{ … }}\" }` and \"$NAME\"",
        };
        self.refusals.push((at, refusal));
    }

    /// The command from one argument up to another.
    fn command(&mut self, from: usize, to: usize) {
        if from >= to {
            return;
        }
        let Some(program) = self.literal(from).map(base) else {
            return self.refuse(from, "run", "it chooses which program runs");
        };
        let args = self.args;
        let rest = from + 1..to;
        match kind(program) {
            Kind::Other => {}
            Kind::Everything => {
                for at in rest.filter(|at| args[*at].is_literal().is_none()) {
                    self.refuse(at, program, "it is evaluated as code");
                }
            }
            Kind::Shell => self.code(program, rest.start, to, &['c'], &[], true),
            Kind::Code(short, long) => self.code(program, rest.start, to, short, long, false),
            Kind::FirstOperand { code, values } => self.first_operand(program, rest.start, to, code, values),
            Kind::Database => self.database(program, rest.start, to),
            Kind::Ssh => self.ssh(program, rest.start, to),
            Kind::RemoteCopy => self.remote_copy(program, rest.start, to),
            Kind::Find => self.find(rest.start, to),
            Kind::Starts(operands, values) => self.starts(program, rest.start, to, operands, values),
            Kind::User => self.user(program, rest.start, to),
            Kind::Somewhere => self.somewhere(rest.start, to),
        }
    }

    /// Options that take code, or else a script as the first operand; what follows either is only data.
    fn code(
        &mut self,
        program: &str,
        from: usize,
        to: usize,
        short: &[char],
        long: &[&str],
        waits_for_operand: bool,
    ) {
        let (mut due, mut code_seen) = (false, false);
        let mut at = from;
        while at < to {
            match self.literal(at) {
                None if due || self.args[at].leading_text().starts_with('-') => {
                    self.refuse(at, program, "it is evaluated as code");
                    (due, code_seen) = (false, true);
                }
                None if !code_seen => {
                    self.refuse(at, program, "it chooses which script runs");
                    code_seen = true;
                }
                None => {}
                Some(option) if due && waits_for_operand && option.starts_with('-') => {}
                Some(_) if due => (due, code_seen) = (false, true),
                Some(option) if option.starts_with("--") && option.len() > 2 => {
                    let name = option.split('=').next().unwrap_or(option);
                    if long.contains(&name) {
                        code_seen = true;
                        due = !option.contains('=');
                    }
                }
                Some(option)
                    if option.starts_with('-') && option.len() > 1 && (!code_seen || !waits_for_operand) =>
                {
                    let letters = &option[1..];
                    if let Some(place) = letters.find(|c| short.contains(&c)) {
                        code_seen = true;
                        due = waits_for_operand || place + 1 == letters.len();
                    } else if waits_for_operand && letters.ends_with('o') {
                        at += 1; // `-o name`
                    }
                }
                Some(_) => code_seen = true, // The script, or one of its arguments.
            }
            at += 1;
        }
    }

    fn first_operand(
        &mut self,
        program: &str,
        from: usize,
        to: usize,
        code: &[&str],
        values: &[(&str, usize)],
    ) {
        let mut seen = false;
        let mut options = true;
        let mut at = from;
        while at < to {
            match self.literal(at) {
                Some("--") => options = false,
                Some(option) if options && option.starts_with('-') && option.len() > 1 => {
                    let name = option.split('=').next().unwrap_or(option);
                    if code.contains(&name) {
                        seen = true;
                        if name == option && at + 1 < to {
                            at += 1;
                            if self.value(at) {
                                self.refuse(at, program, "it is evaluated as code");
                            }
                        }
                    } else if let Some((_, count)) = values.iter().find(|(name, _)| *name == option) {
                        if option == "-v"
                            && at + 1 < to
                            && self.value(at + 1)
                            && !self.args[at + 1].leading_text().contains('=')
                        {
                            self.refuse(at + 1, program, "it chooses which variable is set");
                        }
                        if option.starts_with("--") && at + 1 < to && self.value(at + 1) && *count == 2 {
                            self.refuse(at + 1, program, "it chooses which variable is set");
                        }
                        at += count;
                    } else if code.iter().any(|name| name.len() == 2 && option.starts_with(name)) {
                        seen = true; // The code is written in the same word.
                    }
                }
                Some(_) => seen = true,
                None if options && self.args[at].leading_text().starts_with('-') => {
                    self.refuse(at, program, "it may be evaluated as code");
                }
                None if !seen => {
                    self.refuse(at, program, "it is evaluated as code");
                    seen = true;
                }
                None => {}
            }
            at += 1;
        }
    }

    fn database(&mut self, program: &str, from: usize, to: usize) {
        const SAFE: [&str; 15] = [
            "-h",
            "-p",
            "-U",
            "-d",
            "-P",
            "-u",
            "-D",
            "-H",
            "-S",
            "--host",
            "--port",
            "--user",
            "--username",
            "--dbname",
            "--database",
        ];
        let file_first = program.starts_with("sqlite") || program == "duckdb";
        let mut operands = 0;
        for at in from..to {
            match self.literal(at) {
                Some(literal) => operands += usize::from(!literal.starts_with('-')),
                None => {
                    let lead = self.args[at].leading_text();
                    let after =
                        at > from && self.literal(at - 1).is_some_and(|before| SAFE.contains(&before));
                    let joined = lead.strip_suffix('=').is_some_and(|name| SAFE.contains(&name));
                    let file = file_first && operands == 0 && lead.is_empty();
                    operands += 1;
                    if !(after || joined || file) {
                        self.refuse(at, program, "it may be evaluated as a query");
                    }
                }
            }
        }
    }

    fn ssh(&mut self, program: &str, from: usize, to: usize) {
        const VALUES: [&str; 17] = [
            "-p", "-l", "-i", "-b", "-c", "-m", "-o", "-F", "-J", "-L", "-R", "-D", "-W", "-E", "-S", "-I",
            "-e",
        ];
        let mut host_seen = false;
        let mut at = from;
        while at < to {
            match self.literal(at) {
                Some(option) if !host_seen && VALUES.contains(&option) => {
                    at += 1;
                    let safe = matches!(option, "-p" | "-l");
                    if at < to && self.value(at) && !safe {
                        self.refuse(at, program, "this option can name a command");
                    }
                }
                Some(option) if !host_seen && option.starts_with('-') => {}
                Some(_) => host_seen = true,
                None if host_seen => self.refuse(at, program, "the shell of the other host evaluates it"),
                None if self.args[at].leading_text().starts_with('-') => {
                    self.refuse(at, program, "this option can name a command");
                }
                None => host_seen = true,
            }
            at += 1;
        }
    }

    fn remote_copy(&mut self, program: &str, from: usize, to: usize) {
        let args = self.args;
        const COMMANDS: [&str; 8] = ["-e", "-o", "-S", "-F", "-J", "-D", "--rsh", "--rsync-path"];
        for at in (from..to).filter(|at| args[*at].is_literal().is_none()) {
            let lead = self.args[at].leading_text();
            let after = at > from && self.literal(at - 1).is_some_and(|before| COMMANDS.contains(&before));
            if after || COMMANDS.iter().any(|name| lead.starts_with(name)) {
                self.refuse(at, program, "this option can name a command");
            } else if lead.contains(':') {
                self.refuse(at, program, "the shell of the other host may evaluate it");
            }
        }
    }

    fn find(&mut self, from: usize, to: usize) {
        let mut at = from;
        while at < to {
            if matches!(self.literal(at), Some("-exec" | "-execdir" | "-ok" | "-okdir")) {
                let end =
                    (at + 1..to).find(|end| matches!(self.literal(*end), Some(";" | "+"))).unwrap_or(to);
                self.command(at + 1, end);
                at = end;
            }
            at += 1;
        }
    }

    fn starts(&mut self, program: &str, from: usize, to: usize, operands: usize, values: &[&str]) {
        let args = self.args;
        let mut left = operands;
        let mut at = from;
        while at < to {
            match self.literal(at) {
                Some("-S" | "--split-string") if program == "env" => {
                    for at in (at + 1..to).filter(|at| args[*at].is_literal().is_none()) {
                        self.refuse(at, program, "it is split into a command");
                    }
                    return;
                }
                Some("-c") if program == "flock" => return self.code("sh", at, to, &['c'], &[], true),
                Some(option) if values.contains(&option) => at += 1,
                Some(option) if option.starts_with('-') && option.len() > 1 => {}
                Some(word) if program == "env" && word.contains('=') => {}
                Some(_) | None if left > 0 => left -= 1,
                Some(_) => return self.command(at, to),
                None if program == "env" && self.args[at].leading_text().contains('=') => {
                    let name = self.args[at].leading_text().split('=').next().unwrap_or("");
                    if super::actions::changes_what_runs(name) {
                        self.refuse(at, program, &format!("`{name}` changes what runs"));
                    }
                }
                None if self.args[at].leading_text().starts_with("--")
                    && self.args[at].leading_text().contains('=') => {}
                None => return self.refuse(at, program, "it chooses which program runs"),
            }
            at += 1;
        }
    }

    fn user(&mut self, program: &str, from: usize, to: usize) {
        for at in from..to {
            let before = if at > from { self.literal(at - 1) } else { None };
            let code = before.is_some_and(|option| {
                matches!(option, "--command" | "--session-command" | "-s" | "--shell")
                    || (option.starts_with('-') && !option.starts_with("--") && option.contains('c'))
            });
            if self.value(at) && (code || self.args[at].leading_text().starts_with('-')) {
                self.refuse(at, program, "a shell evaluates it");
            }
            if before == Some("--") {
                return self.command(at, to);
            }
        }
    }

    /// Looks for anything known among the arguments.
    fn somewhere(&mut self, from: usize, to: usize) {
        // `docker exec` and `docker run` are its own words, not programs.
        let own = ["exec", "run", "command", "time", "at", "watch"];
        let known = |at: &usize| {
            self.literal(*at)
                .is_some_and(|word| !own.contains(&word) && !matches!(kind(base(word)), Kind::Other))
        };
        if let Some(at) = (from..to).find(known) {
            self.command(at, to);
        }
    }
}
