//! The command line: every command, flag and help text.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::output::Format;

const AFTER: &str = "\
Exit codes: 0 verified, or succeeded with nothing to verify · 1 failed or cancelled · 2 usage · 3 not found · 4 sign-in needed ·
5 not allowed · 7 undone · 8 pending · 9 rejected or expired · 10 not verified · 11 partial · 13 refused by a guard
or the host · 14 controller unreachable · 15 waits for a person to resolve

Examples:
  fettle login
  fettle status
  fettle start host/disk-full --host web-1 -i mount=/var
  fettle approve gate_0190…
  fettle signal explain sig_0190…";

/// Runbook automation: agents diagnose and mend hosts, people approve what is risky.
#[derive(Debug, Parser)]
#[command(name = "fettle", version, after_help = AFTER, disable_help_subcommand = true, max_term_width = 110)]
pub struct Cli {
    /// What applies to every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What applies to every command.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// How to print: for people, or for programs. Stdout is data, stderr is talk.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    pub output: Format,
    /// The file that says which controller to call, which trust bundle to believe and who you are
    /// [default: $XDG_CONFIG_HOME/fettle/config.yaml, then ~/.config/fettle/config.yaml].
    #[arg(long, global = true, env = "FETTLE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The controller's gRPC address, `https://host:port`; overrides the file.
    #[arg(long, global = true, env = "FETTLE_CONTROLLER", value_name = "URL")]
    pub controller: Option<String>,
    /// The trust bundle (`trust.json`); overrides the file. The controller's certificate must chain to it.
    #[arg(long, global = true, env = "FETTLE_TRUST", value_name = "FILE")]
    pub trust: Option<PathBuf>,
    /// Who you are in the roster; overrides the file.
    #[arg(long, global = true, env = "FETTLE_PERSON", value_name = "NAME")]
    pub person: Option<String>,
    /// Your private key file; overrides the file. Without one, ssh-agent is asked.
    #[arg(long, global = true, env = "FETTLE_KEY", value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// How long to wait for an answer of the controller, as in `10s`.
    #[arg(long, global = true, value_parser = duration, default_value = "10s", value_name = "TIME")]
    pub timeout: Option<Duration>,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a runbook on a host and watch it.
    #[command(after_help = "\
Examples:
  fettle start host/disk-full --host web-1 -i mount=/var -i max_used=80
  fettle start host/service-down --host web-1 --detach -o json
  fettle start --file ./draft.yaml --host web-1        (not certified: every remediate step counts as critical)

Ends with the exit code of the run's ending; with --detach, 0 once the run is accepted. Ctrl-C detaches, the run goes on.")]
    Start(Start),
    /// Diagnose a host and show what a runbook would do; or show the plan of a run.
    #[command(after_help = "\
Examples:
  fettle plan host/disk-full --host web-1 -i mount=/var      diagnoses, plans, changes nothing
  fettle plan run_019…                                       the plan of a run that exists")]
    Plan(Plan),
    /// Follow a run: what happened, then what happens, live.
    #[command(after_help = "\
Examples:
  fettle watch run_019…
  fettle watch run_019… -o jsonl | jq .text

Ctrl-C detaches; the run goes on. Ends with the exit code of the run's ending.")]
    Watch(Watch),
    /// Print what the steps of a run printed.
    #[command(
        after_help = "Examples:\n  fettle logs run_019…\n  fettle logs run_019… --host web-1 --step diagnose/usage"
    )]
    Logs(Logs),
    /// Approve a gate: shows exactly what will run, signs it with your key.
    #[command(after_help = "\
Examples:
  fettle approve gate_019…
  fettle approve gate_019… --reason 'seen the plan, INC-4711'

What you sign is shown from the very bytes that the host will check. What is not signed is shown apart.")]
    Approve(Approve),
    /// Reject a gate, with a reason.
    #[command(after_help = "Examples:\n  fettle reject gate_019… --reason 'failover is under way'")]
    Reject(Reject),
    /// What waits, what runs, which hosts are away.
    #[command(after_help = "Examples:\n  fettle status\n  fettle status -o json | jq '.gates[].id'")]
    Status,
    /// Runs: list, show, pause, resume, retry, undo, cancel, resolve.
    #[command(subcommand)]
    Run(Run),
    /// Signals: list, explain why something did or did not happen, test a body.
    #[command(subcommand)]
    Signal(Signal),
    /// Incidents: list, show with timeline and the 1-5-10 clocks.
    #[command(subcommand)]
    Incident(Incident),
    /// Agents: list, show, create enrolment tokens, revoke.
    #[command(subcommand)]
    Agent(Agent),
    /// Runbooks: list, show, lint, certify, verify.
    #[command(subcommand)]
    Runbook(Runbook),
    /// Detection: how late alerts can be, read from the files of Prometheus and Alertmanager.
    #[command(subcommand)]
    Detect(Detect),
    /// The roster: sign, show.
    #[command(subcommand)]
    Roster(Roster),
    /// Sign in: the controller's challenge is signed with your key.
    #[command(after_help = "Examples:\n  fettle login\n  fettle login --person ana --key ~/.ssh/id_ed25519")]
    Login(Login),
    /// Who you are signed in as, until when, and what you may do.
    #[command(after_help = "Examples:\n  fettle whoami")]
    Whoami,
    /// Print a completion script for a shell.
    #[command(
        after_help = "Examples:\n  fettle completion bash > /etc/bash_completion.d/fettle\n  source <(fettle completion zsh)"
    )]
    Completion(Completion),
    /// Print the version.
    Version,
    /// Watch it all happen on this machine: a service breaks, an alert comes, Fettle mends it, with your approval.
    #[command(after_help = "\
Examples:
  fettle demo
  fettle demo --keep          leaves it running and prints what to try next

Needs no root and no home directory; everything is in one temporary directory, which is removed at the end, also
after Ctrl-C.")]
    Demo(crate::demo::Options),
    /// A part of the demonstration.
    #[command(name = "__demo", hide = true, subcommand)]
    DemoPart(crate::demo::Part),
}

/// `fettle start`
#[derive(Clone, Debug, Args)]
pub struct Start {
    /// What to start, and where.
    #[command(flatten)]
    pub what: What,
    /// Print the run's id and leave; do not watch.
    #[arg(short, long)]
    pub detach: bool,
}

/// A runbook, its hosts and inputs.
#[derive(Clone, Debug, Args)]
pub struct What {
    /// The runbook's name in the library, as in `host/disk-full`.
    #[arg(value_name = "RUNBOOK", required_unless_present = "file")]
    pub runbook: Option<String>,
    /// A runbook file of your own, not certified, instead of one of the library.
    #[arg(short, long, value_name = "FILE", conflicts_with = "runbook")]
    pub file: Option<PathBuf>,
    /// The host to run on; may be given several times, or separated by commas.
    #[arg(short = 'H', long = "host", value_name = "HOST", value_delimiter = ',')]
    pub hosts: Vec<String>,
    /// An input, `name=value`; may be given several times.
    #[arg(short, long = "input", value_name = "NAME=VALUE", value_parser = pair)]
    pub inputs: Vec<(String, String)>,
}

/// `fettle plan`
#[derive(Clone, Debug, Args)]
pub struct Plan {
    /// What to plan, and where. A run's id shows the plan of that run.
    #[command(flatten)]
    pub what: What,
}

/// `fettle watch`
#[derive(Clone, Debug, Args)]
pub struct Watch {
    /// The run's id.
    pub run: String,
    /// Only what came after this event number.
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    pub after: u64,
    /// Do not print the output of steps.
    #[arg(short, long)]
    pub quiet: bool,
}

/// `fettle logs`
#[derive(Clone, Debug, Args)]
pub struct Logs {
    /// The run's id.
    pub run: String,
    /// Only this host.
    #[arg(short = 'H', long, value_name = "HOST")]
    pub host: Option<String>,
    /// Only this step, by its path, as in `remediate/purge`.
    #[arg(short, long, value_name = "PATH")]
    pub step: Option<String>,
}

/// `fettle approve`
#[derive(Clone, Debug, Args)]
pub struct Approve {
    /// The gate's id; `fettle status` lists the open ones.
    pub gate: String,
    /// Why, for the record; it is signed.
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    pub reason: String,
    /// Do not ask; for scripts. What is signed is still printed.
    #[arg(short, long)]
    pub yes: bool,
}

/// `fettle reject`
#[derive(Clone, Debug, Args)]
pub struct Reject {
    /// The gate's id; `fettle status` lists the open ones.
    pub gate: String,
    /// Why, for the record; it is signed.
    #[arg(short, long, value_name = "TEXT")]
    pub reason: String,
}

/// `fettle run …`
#[derive(Clone, Debug, Subcommand)]
pub enum Run {
    /// Runs, newest first.
    #[command(after_help = "Examples:\n  fettle run list --open\n  fettle run list --host web-1 -o jsonl")]
    List {
        /// Only runs on this host.
        #[arg(short = 'H', long, value_name = "HOST")]
        host: Option<String>,
        /// Only runs that have not ended.
        #[arg(long)]
        open: bool,
        /// At most so many.
        #[arg(short = 'n', long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Only runs older than this one; continues a list.
        #[arg(long, value_name = "RUN")]
        before: Option<String>,
    },
    /// Go on from a run that is over and did not end well: a new run that diagnoses anew and goes on at the step that failed.
    #[command(after_help = "\
Examples:
  fettle run retry run_019…
  fettle run retry run_019… --host web-1 --reason 'the mount is back'

The same runbook with the same inputs, on the hosts whose part did not end verified or succeeded. Each host renders a fresh plan
and marks in it the leading steps that it had done and that would be done in exactly the same way: they are not run again. The
rest is as with `fettle start`: gates, guards and the host's veto. You are its requester. Where a step's outcome is unknown, say
with `fettle run resolve` first what you found.

Ends with the exit code of the new run's ending; with --detach, 0 once it is accepted.
Exit codes besides: 1 nothing is left to retry, the library has another runbook by now, it is an undo itself, or another retry or
undo of it is not over · 3 no such run or host · 5 not allowed · 8 the run is not over · 13 a host refuses, and says why · 15 it waits for a person to resolve a step")]
    Retry {
        /// What to go on from.
        #[command(flatten)]
        of: Follow,
        /// Why, for the record.
        #[arg(short, long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
    /// Make what a run did as if not done: a new run that undoes its finished steps, the last one first.
    #[command(after_help = "\
Examples:
  fettle run undo run_019… --reason 'it made things worse'
  fettle run undo run_019… --host web-1 --cancel --reason 'wrong host'

Each host builds a plan of the undos as they stood in the plan of that run, each at the risk of the step that it undoes; gates,
guards and the host's veto are as for any plan. A step that failed midway is put back where its undo knows how far it came
(`undo: previous`). Steps without an undo are named, and stay. What was undone is not undone twice.

Ends with the exit code of the new run's ending: 7 undone, as asked; 1 an undo failed. With --detach, 0 once it is accepted.
Exit codes besides: 1 there is nothing to undo, it was undone before, it is an undo itself, or another retry or undo of it is not
over · 3 no such run or host · 5 not allowed, also to stop it with --cancel · 8 the run is not over
13 a host refuses, and says why · 15 it waits for a person to resolve a step")]
    Undo {
        /// What to go on from.
        #[command(flatten)]
        of: Follow,
        /// Why, for the record.
        #[arg(short, long, value_name = "TEXT")]
        reason: String,
        /// If the run is not over, stop it on all its hosts first, and wait until they have confirmed it.
        #[arg(long)]
        cancel: bool,
    },
    /// Stop a run on all its hosts. It is `cancelled` once each host has confirmed that nothing of it will start any more.
    #[command(after_help = "\
Examples:
  fettle run cancel run_019… --reason 'wrong host'

A step that runs is killed with everything it started; if it may have had an effect, the run waits for `fettle run resolve`.
What had ended by itself before its host heard of it keeps its ending. For whoever started the run, and for the scope `operate`.

Exit codes: 0 the hosts are asked, or will be when they are back · 1 the run has ended · 3 no such run · 5 not allowed")]
    Cancel {
        /// The run's id.
        run: String,
        /// Why, for the record.
        #[arg(short, long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
    /// Pause a run: no step that acts begins until `fettle run resume`. A step that runs goes on.
    #[command(after_help = "\
Examples:
  fettle run pause run_019… --reason 'the failover is not over'
  fettle run pause run_019… --host web-1 --reason 'I want to look first'

What only reads goes on, and so does the time of gates and approvals: a pause gives nobody more time. A host that is away is told
when it is back; until it has confirmed, `fettle run show` says so. For whoever started the run, and for the scope `operate`.

Exit codes: 0 paused, or will be when the host is back · 1 the run has ended, is cancelled or is paused · 3 no such run or host · 5 not allowed")]
    Pause {
        /// The run's id.
        run: String,
        /// Only on this host; on all of them if left out.
        #[arg(short = 'H', long, value_name = "HOST")]
        host: Option<String>,
        /// Why, for whoever finds it paused.
        #[arg(short, long, value_name = "TEXT")]
        reason: String,
    },
    /// Let a paused run go on.
    #[command(after_help = "\
Examples:
  fettle run resume run_019…
  fettle run resume run_019… --host web-1

Guards that had not let it pass yet are asked anew, and the condition of the step that comes next is read anew. For whoever started the run, and for the scope
`operate`.

Exit codes: 0 it goes on, or will when the host is back · 1 the run has ended, is cancelled or is not paused · 3 no such run or host · 5 not allowed")]
    Resume {
        /// The run's id.
        run: String,
        /// Only on this host; on all of them if left out.
        #[arg(short = 'H', long, value_name = "HOST")]
        host: Option<String>,
    },
    /// Say whether a step ran whose outcome nobody can tell, after looking at its host; or have it run again, which is signed for.
    #[command(after_help = "\
Examples:
  fettle run resolve run_019… --host web-1 --ran --reason 'the unit was restarted at 03:12'
  fettle run resolve run_019… --host web-1 --did-not-run --reason 'nothing in its log'
  fettle run resolve run_019… --host web-1 --step remediate/purge --run-again --reason 'it is safe to purge twice'

After --ran and --did-not-run no later step is started; what the runbook verifies is read, and decides how the run ends.
--run-again opens a gate: the step may have run, so whoever would have to approve it and the steps after it signs for that, and you
are the first to be asked. Where nobody would have to, your own signature is enough. Then it runs again, and the rest follows.
Needs the scope `operate`; to sign, `approve`.

Exit codes: 0 recorded, or enough people have signed · 1 nothing waits to be resolved there · 3 no such run or host · 5 not allowed ·
8 others must sign")]
    Resolve {
        /// The run's id.
        run: String,
        /// The host you looked at.
        #[arg(short = 'H', long, value_name = "HOST")]
        host: String,
        /// The step you looked at, by its path; refused when another one waits.
        #[arg(short, long, value_name = "PATH")]
        step: Option<String>,
        /// The step took effect.
        #[arg(long, required_unless_present_any = ["did_not_run", "run_again"], conflicts_with_all = ["did_not_run", "run_again"])]
        ran: bool,
        /// The step did not take effect.
        #[arg(long, conflicts_with = "run_again")]
        did_not_run: bool,
        /// Whatever it did, it is to run again, and the steps after it.
        #[arg(long)]
        run_again: bool,
        /// With --run-again: do not ask before signing; for scripts. What is signed is still printed.
        #[arg(short, long)]
        yes: bool,
        /// How you know, for the record.
        #[arg(short, long, value_name = "TEXT")]
        reason: String,
    },
    /// One run with its steps. Ends with 0 whatever the run's ending.
    #[command(
        after_help = "Examples:\n  fettle run show run_019…\n  fettle run show run_019… -o json | jq '.hosts[].ending'"
    )]
    Show {
        /// The run's id.
        run: String,
    },
}

/// A run that another goes on from.
#[derive(Clone, Debug, Args)]
pub struct Follow {
    /// The run's id.
    pub run: String,
    /// Only on this host of the run; may be given several times, or separated by commas.
    #[arg(short = 'H', long = "host", value_name = "HOST", value_delimiter = ',')]
    pub hosts: Vec<String>,
    /// Print the new run's id and leave; do not watch.
    #[arg(short, long)]
    pub detach: bool,
}

/// `fettle signal …`
#[derive(Clone, Debug, Subcommand)]
pub enum Signal {
    /// Signals, newest first.
    #[command(after_help = "Examples:\n  fettle signal list -n 10")]
    List {
        /// At most so many.
        #[arg(short = 'n', long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Why a signal did, or did not, start anything.
    #[command(after_help = "Examples:\n  fettle signal explain sig_019…")]
    Explain {
        /// The signal's id.
        signal: String,
    },
    /// What a body would do if a source posted it now. Changes nothing.
    #[command(
        after_help = "Examples:\n  fettle signal test alert.json\n  cat alert.json | fettle signal test -"
    )]
    Test {
        /// The body, as the source would post it; `-` reads stdin.
        file: PathBuf,
        /// The source that would post it.
        #[arg(short, long, default_value = "alertmanager")]
        source: String,
    },
}

/// `fettle incident …`
#[derive(Clone, Debug, Subcommand)]
pub enum Incident {
    /// Incidents, newest first.
    #[command(after_help = "Examples:\n  fettle incident list --open")]
    List {
        /// Only open ones.
        #[arg(long)]
        open: bool,
        /// At most so many.
        #[arg(short = 'n', long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// One incident: its timeline, who decided what, the three clocks against 1-5-10.
    #[command(after_help = "Examples:\n  fettle incident show inc_019…")]
    Show {
        /// The incident's id.
        incident: String,
    },
}

/// `fettle agent …`
#[derive(Clone, Debug, Subcommand)]
pub enum Agent {
    /// Every agent, and whether it is connected.
    #[command(after_help = "Examples:\n  fettle agent list")]
    List,
    /// One agent.
    #[command(after_help = "Examples:\n  fettle agent show web-1")]
    Show {
        /// The host's name.
        host: String,
    },
    /// Enrolment tokens.
    #[command(subcommand)]
    Token(Token),
    /// End an agent's certificate and its connection, and its part in every run.
    ///
    /// For a host that is lost or in wrong hands. Nobody waits for it any more: what it had not finished is cancelled, and what it
    /// may have begun waits for a person who looks (fettle run resolve). A host that still lives may finish what it has accepted.
    #[command(after_help = "\
Examples:
  fettle agent revoke web-1 --reason 'host is gone'

Exit codes: 0 revoked · 3 no such host · 5 not allowed")]
    Revoke {
        /// The host's name.
        host: String,
        /// Why, for the record.
        #[arg(short, long, value_name = "TEXT")]
        reason: String,
    },
}

/// `fettle agent token …`
#[derive(Clone, Debug, Subcommand)]
pub enum Token {
    /// A single-use token with which one host may join. Prints the token on stdout, the command to run there on stderr.
    #[command(
        after_help = "Examples:\n  fettle agent token create web-1 --label region=ug --label role=web --valid 30m"
    )]
    Create {
        /// The name the host will have.
        host: String,
        /// A label the host will have, `name=value`; may be given several times.
        #[arg(short, long = "label", value_name = "NAME=VALUE", value_parser = pair)]
        labels: Vec<(String, String)>,
        /// How long it may be spent; at most 7 days.
        #[arg(long, default_value = "1h", value_parser = duration, value_name = "TIME")]
        valid: Duration,
    },
}

/// `fettle runbook …`
#[derive(Clone, Debug, Subcommand)]
pub enum Runbook {
    /// The library: names, titles, what starts them, whether they are certified; and the files that were refused.
    #[command(after_help = "Examples:\n  fettle runbook list")]
    List,
    /// One runbook of the library.
    #[command(
        after_help = "Examples:\n  fettle runbook show host/disk-full\n  fettle runbook show host/disk-full --source > disk-full.yaml"
    )]
    Show {
        /// Its name.
        runbook: String,
        /// Print its exact bytes.
        #[arg(long)]
        source: bool,
    },
    /// Check runbook files, here, without a controller. All problems at once, with line and fix.
    #[command(after_help = "\
Examples:
  fettle runbook lint disk-full.yaml
  fettle runbook lint library/**/*.yaml -o json

Exit codes: 0 no errors (warnings are printed) · 1 errors · 2 a file cannot be read")]
    Lint {
        /// Runbook files; `-` reads stdin.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Warnings are errors.
        #[arg(long)]
        strict: bool,
    },
    /// Sign a runbook as its reviewer; adds to the `.cert` file beside it.
    #[command(after_help = "Examples:\n  fettle runbook certify host/disk-full.yaml --author ben")]
    Certify {
        /// The runbook file.
        file: PathBuf,
        /// Who wrote it; the reviewer must be someone else.
        #[arg(long, value_name = "PERSON")]
        author: String,
    },
    /// Check the certificates of a runbook file against a roster.
    #[command(
        after_help = "Examples:\n  fettle runbook verify host/disk-full.yaml\n  fettle runbook verify disk-full.yaml --roster roster.signed.json"
    )]
    Verify {
        /// The runbook file.
        file: PathBuf,
        /// A signed roster file; without it, the roster in force is asked for.
        #[arg(long, value_name = "FILE")]
        roster: Option<PathBuf>,
    },
}

/// `fettle detect …`
#[derive(Clone, Debug, Subcommand)]
pub enum Detect {
    /// For each alert its best and worst detection time, from the symptom to its arrival here, where the time goes, and which
    /// key of which file to change. Reads local files only; asks no controller, no Prometheus.
    #[command(after_help = "\
Examples:
  fettle detect lint --prometheus prometheus.yml --alertmanager alertmanager.yml
  fettle detect lint --prometheus prometheus.yml --alert 'Node*' --limit 2m
  fettle detect lint --prometheus prometheus.yml --alertmanager alertmanager.yml --library library rules/*.yml -o json

Best is the first alert of a group with every wait at its shortest; worst is every wait at its longest. Both leave out what
the machines themselves need, usually well below a second.

Exit codes: 0 every alert is in time at worst, too · 1 one may be late or never come · 2 a file cannot be read, or is wrong")]
    Lint(DetectLint),
}

/// `fettle detect lint`
#[derive(Clone, Debug, Args)]
pub struct DetectLint {
    /// Prometheus's configuration. The files that its `rule_files` and `scrape_config_files` name are read, too.
    #[arg(long, value_name = "FILE", default_value = "prometheus.yml")]
    pub prometheus: PathBuf,
    /// Alertmanager's configuration. Without it the way ends where Prometheus sends the alert.
    #[arg(long, value_name = "FILE")]
    pub alertmanager: Option<PathBuf>,
    /// A receiver of Alertmanager that is Fettle's, beside those whose webhook's `url` has `/v1/signals/`.
    #[arg(long = "receiver", value_name = "NAME", requires = "alertmanager")]
    pub receivers: Vec<String>,
    /// Only alerts with such names, as in `Node*`; may be given several times.
    #[arg(long = "alert", value_name = "PATTERN")]
    pub alerts: Vec<glob::Pattern>,
    /// A library of runbooks: also say which alerts none of them answers.
    #[arg(long, value_name = "FOLDER")]
    pub library: Option<PathBuf>,
    /// What the worst is held against.
    #[arg(long, value_parser = duration, default_value = "1m", value_name = "TIME")]
    pub limit: Duration,
    /// More rule files, or patterns of them.
    #[arg(value_name = "RULES")]
    pub rules: Vec<PathBuf>,
}

/// `fettle roster …`
#[derive(Clone, Debug, Subcommand)]
pub enum Roster {
    /// Sign a roster with a root key.
    #[command(
        after_help = "Examples:\n  fettle roster sign roster.yaml --key root_ed25519 --out roster.json"
    )]
    Sign {
        /// The roster as written (YAML or JSON).
        file: PathBuf,
        /// Where to write the signed roster; without it, stdout.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// The roster in force, or one in a file: persons, groups, scopes, rules.
    #[command(after_help = "Examples:\n  fettle roster show\n  fettle roster show roster.json")]
    Show {
        /// A signed roster file; without it, the roster in force.
        file: Option<PathBuf>,
    },
}

/// `fettle login`
#[derive(Clone, Debug, Args)]
pub struct Login {}

/// `fettle completion`
#[derive(Clone, Debug, Args)]
pub struct Completion {
    /// The shell.
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// `name=value`
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some(("", _)) | None => Err("expected `name=value`".to_owned()),
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
    }
}

/// `90s`, `10m`, `1h 30m`
fn duration(text: &str) -> Result<Duration, String> {
    let bad = || {
        format!("`{text}` is not a length of time: expected a number and a unit, as in `90s`, `10m` or `2h`")
    };
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let count: u64 = rest[..digits].parse().map_err(|_| bad())?;
        let tail = &rest[digits..];
        let unit = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let ms: u64 = match &tail[..unit] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(bad()),
        };
        total = count
            .checked_mul(ms)
            .and_then(|ms| total.checked_add(Duration::from_millis(ms)))
            .ok_or_else(bad)?;
        rest = tail[unit..].trim_start();
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_tree_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_that_people_see_has_an_example() {
        fn walk(command: &clap::Command, path: &str, missing: &mut Vec<String>) {
            for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
                let path = format!("{path} {}", sub.get_name());
                if sub.has_subcommands() {
                    walk(sub, &path, missing);
                } else if sub.get_after_help().is_none_or(|help| !help.to_string().contains("fettle")) {
                    missing.push(path);
                }
            }
        }
        let mut missing = Vec::new();
        walk(&Cli::command(), "fettle", &mut missing);
        assert_eq!(missing, ["fettle version"]);
    }

    #[test]
    fn lengths_of_time_have_units() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5400)));
        assert!(duration("90").is_err());
        assert!(duration("").is_err());
        assert!(duration("1 fortnight").is_err());
        assert!(duration("99999999999999999999s").is_err());
        assert!(duration("9999999999999999999d").is_err());
    }

    #[test]
    fn an_input_may_hold_anything_after_the_first_equals_sign() {
        let cli =
            Cli::try_parse_from(["fettle", "start", "a/b", "--host", "w1,w2", "-i", "q=a=b $(touch x)"]);
        let Command::Start(start) = cli.unwrap().command else { panic!("not start") };
        assert_eq!(start.what.hosts, ["w1", "w2"]);
        assert_eq!(start.what.inputs, [("q".to_owned(), "a=b $(touch x)".to_owned())]);
    }

    #[test]
    fn a_runbook_is_named_or_is_a_file_and_never_both() {
        assert!(Cli::try_parse_from(["fettle", "start", "--host", "w1"]).is_err());
        assert!(Cli::try_parse_from(["fettle", "start", "a/b", "--file", "x.yaml", "--host", "w1"]).is_err());
        assert!(Cli::try_parse_from(["fettle", "start", "--file", "x.yaml", "--host", "w1"]).is_ok());
    }
}
