//! Which arguments take no value, program by program.

use super::{diagnose, said};

/// The problems of a command, `V` standing for an argument with a value in it.
fn refused(command: &str) -> String {
    let args: Vec<String> = command
        .split(' ')
        .map(|word| match word.split_once('V') {
            Some((before, after)) => format!("\"{before}${{{{ inputs.mount }}}}{after}\""),
            None => format!("'{word}'"),
        })
        .collect();
    said(&diagnose(&format!("  - id: a\n    run: [{}]\n", args.join(", "))))
}

#[test]
fn what_a_program_would_evaluate_takes_no_value() {
    let commands = [
        "sh -c V",
        "sh -c echo_V",
        "/bin/bash -c V x",
        "bash -euc V",
        "bash -e -o pipefail -c V",
        "bash -c -e V",
        "dash V",
        "zsh -c V",
        "ksh -c V",
        "env sh -c V",
        "env -i A=b sh -c V",
        "env -S V",
        "env LD_PRELOAD=V df",
        "env V df",
        "sudo sh -c V",
        "sudo -u postgres psql -c V",
        "sudo -n -u root V",
        "su - postgres -c V",
        "runuser -u x -- sh -c V",
        "timeout 5 sh -c V",
        "timeout 5 V",
        "nice -n 5 sh -c V",
        "nohup sh -c V",
        "xargs -n 1 sh -c V",
        "flock /tmp/l -c V",
        "find /var -exec sh -c V ;",
        "find /var -name x -execdir V ;",
        "awk V /etc/passwd",
        "awk -F : V",
        "gawk -f V x",
        "awk -v V 1",
        "sed -n V file",
        "sed -e V file",
        "sed --expression=V file",
        "jq V file",
        "jq -r V",
        "jq --arg V x .",
        "psql -c V",
        "psql -d app -c select_V",
        "psql -v x=V -f file",
        "mysql -e V",
        "mysql --execute=V",
        "sqlite3 app.db V",
        "redis-cli V",
        "ssh host V",
        "ssh -p 22 host uptime V",
        "ssh -o V host",
        "ssh -oProxyCommand=V host",
        "scp -S V a b",
        "scp host:V b",
        "rsync -e V a b",
        "rsync --rsh=V a b",
        "python3 -c V",
        "python3.11 -c V",
        "python3 V",
        "python3 -m V",
        "perl -e V",
        "perl -ne V file",
        "perl -eV",
        "ruby -e V",
        "node -e V",
        "node --eval V",
        "node --eval=V",
        "php -r V",
        "lua5.4 -e V",
        "eval V",
        "watch V",
        "parallel V",
        "make X=V",
        "docker exec app sh -c V",
        "kubectl exec pod -- bash -c V",
        "busybox sh -c V",
        "busybox awk V",
        "systemd-run --unit=x sh -c V",
        "nsenter -t 1 -m sh -c V",
        "strace -o x sh -c V",
    ];
    for command in commands {
        let said = refused(command);
        assert!(said.contains("value-becomes-code"), "`{command}` takes a value: {said}");
    }
}

#[test]
fn what_is_only_data_takes_values() {
    let commands = [
        "df V",
        "df --output=pcent V",
        "du -x --max-depth=2 V",
        "tail -n 20 V/log",
        "sh -c echo_$0 V",
        "bash script V",
        "find V -xdev -type f -name *.log -delete",
        "find V -exec rm {} +",
        "find /var -newer V -exec gzip -- V ;",
        "awk {print} V",
        "awk -v x=V {print_x} file",
        "sed -n 1p V",
        "sed -i s/a/b/ V",
        "jq .a V",
        "jq --arg x V .a file",
        "psql -h V -p V -U V -d V -c select",
        "psql --host=V -c select",
        "sqlite3 V .tables",
        "ssh V uptime",
        "ssh -p V host uptime",
        "scp V host:/tmp/x",
        "rsync -a V /backup",
        "python3 script.py V",
        "python3 -c code V",
        "perl -e code V",
        "sudo -u postgres df V",
        "timeout V df",
        "env A=V df V",
        "systemctl restart V",
        "journalctl -u V -n 50",
        "docker restart V",
        "docker exec V df",
    ];
    for command in commands {
        assert_eq!(refused(command), "", "`{command}`");
    }
}

#[test]
fn the_refusal_stands_at_the_argument() {
    assert_eq!(
        refused("sh -c V"),
        "13:23 value-becomes-code: no value may be in this argument of `sh`: it is evaluated as code (write a script instead, \
         which takes the value from its environment: `env: { NAME: \"${{ … }}\" }` and \"$NAME\")"
    );
}
