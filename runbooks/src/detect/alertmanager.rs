//! `alertmanager.yml`: the way an alert takes to a receiver, and how long it is held on it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Setting;
use super::document::{Document, Node, Place, Wrong};
use super::matcher::{Holds, Labels, Matcher, Op, parse};

const GROUP_WAIT: Duration = Duration::from_secs(30);
const GROUP_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// Ways that hang on labels nobody knows yet double with each of them.
const MOST_WAYS: usize = 64;

/// What of the file bears on where alerts go, and when.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) root: Route,
    pub(super) receivers: BTreeMap<String, Receiver>,
    pub(super) inhibits: Vec<Inhibit>,
}

#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) place: Place,
    pub(super) receiver: String,
    pub(super) group_wait: Setting,
    pub(super) group_interval: Setting,
    /// Whether each alert is a group of its own: `group_by: ['...']`.
    pub(super) each_alone: bool,
    pub(super) group_by: Place,
    matchers: Vec<Matcher>,
    goes_on: bool,
    routes: Vec<Route>,
    /// Names of the times in which it sends nothing, or outside of which it sends nothing.
    pub(super) silent: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Receiver {
    pub(super) place: Place,
    /// Whether it posts to Fettle.
    pub(super) is_fettle: bool,
    /// Whether one of its webhooks has its address in another file, so that this cannot be told.
    pub(super) is_hidden: bool,
    pub(super) sends_resolved: bool,
    /// At most so many alerts of a group, if it says so.
    pub(super) max_alerts: Option<u64>,
}

/// A rule by which one alert holds back others.
#[derive(Clone, Debug)]
pub(super) struct Inhibit {
    pub(super) place: Place,
    target: Vec<Matcher>,
}

impl Inhibit {
    pub(super) fn may_hold(&self, labels: &Labels) -> bool {
        self.target.iter().all(|matcher| matcher.holds(labels) != Holds::No)
    }
}

/// One way an alert may take: the routes that get it, under conditions on labels nobody knows yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Way<'r> {
    pub(super) conditions: BTreeSet<String>,
    pub(super) routes: Vec<&'r Route>,
}

impl Config {
    /// `fettle` names receivers that are Fettle's beside those whose address tells it.
    pub(super) fn read(file: &str, text: &str, fettle: &BTreeSet<String>) -> Result<Config, Wrong> {
        let document = Document::read(file, text)?;
        let root = document.root();
        let mut receivers = BTreeMap::new();
        for receiver in root.list("receivers")? {
            let name = receiver.text("name")?.ok_or_else(|| receiver.wrong("a receiver needs a `name:`"))?;
            let read = Receiver::read(&receiver, fettle.contains(&name))?;
            receivers.insert(name, read);
        }
        if let Some(unknown) = fettle.iter().find(|name| !receivers.contains_key(*name)) {
            return Err(root.wrong(format!("it has no receiver `{unknown}`")));
        }
        let top = root.get("route")?.ok_or_else(|| root.wrong("it has no `route:`"))?;
        if top.get("receiver")?.is_none() {
            return Err(top.wrong("the first route needs a `receiver:`"));
        }
        let route = Route::read(&top, None, &receivers)?;
        let mut inhibits = Vec::new();
        for rule in root.list("inhibit_rules")? {
            let target = matchers(&rule, "target_match", "target_match_re", "target_matchers")?;
            inhibits.push(Inhibit { place: rule.place(), target });
        }
        Ok(Config { root: route, receivers, inhibits })
    }

    /// Whether a route's receiver posts to Fettle.
    pub(super) fn is_fettle(&self, route: &Route) -> bool {
        self.receivers.get(&route.receiver).is_some_and(|receiver| receiver.is_fettle)
    }

    /// Every way that alerts with these labels may take, or `None` if there are too many to tell.
    pub(super) fn ways(&self, labels: &Labels) -> Option<Vec<Way<'_>>> {
        ways(&self.root, labels)
    }
}

impl Receiver {
    fn read(node: &Node<'_>, named: bool) -> Result<Receiver, Wrong> {
        let mut receiver = Receiver {
            place: node.place(),
            is_fettle: named,
            is_hidden: false,
            sends_resolved: true,
            max_alerts: None,
        };
        for webhook in node.list("webhook_configs")? {
            let is_fettle = webhook.text("url")?.is_some_and(|url| url.contains("/v1/signals/"));
            receiver.is_fettle |= is_fettle;
            receiver.is_hidden |= webhook.get("url_file")?.is_some() && !named;
            if is_fettle || named {
                receiver.place = webhook.place();
                receiver.sends_resolved = webhook.flag("send_resolved")?.unwrap_or(true);
                receiver.max_alerts =
                    webhook.text("max_alerts")?.and_then(|text| text.parse().ok()).filter(|most| *most > 0);
            }
        }
        Ok(receiver)
    }
}

impl Route {
    fn read(
        node: &Node<'_>,
        parent: Option<&Route>,
        receivers: &BTreeMap<String, Receiver>,
    ) -> Result<Route, Wrong> {
        let receiver = match (node.text("receiver")?, parent) {
            (Some(name), _) if receivers.contains_key(&name) => name,
            (Some(name), _) => return Err(node.wrong(format!("there is no receiver `{name}`"))),
            (None, Some(parent)) => parent.receiver.clone(),
            (None, None) => return Err(node.wrong("the first route needs a `receiver:`")),
        };
        // What a route does not say, the one above it says. What would have to be changed is the route's own.
        let inherited = |key: &'static str, above: Option<Duration>, default: Duration| {
            Setting::read(node, key, above.unwrap_or(default))
        };
        let group_by = node.list("group_by")?.iter().map(Node::as_text).collect::<Result<Vec<_>, _>>()?;
        let each_alone = match (node.get("group_by")?, parent) {
            (Some(_), _) => group_by.iter().any(|label| label == "..."),
            (None, Some(parent)) => parent.each_alone,
            (None, None) => false,
        };
        let mut silent: Vec<String> = Vec::new();
        for (key, words) in [("mute_time_intervals", "in"), ("active_time_intervals", "outside of")] {
            for name in node.list(key)? {
                silent.push(format!("{words} `{}`", name.as_text()?));
            }
        }
        let mut route = Route {
            place: node.place(),
            receiver,
            group_wait: inherited("group_wait", parent.map(|it| it.group_wait.value), GROUP_WAIT)?,
            group_interval: inherited(
                "group_interval",
                parent.map(|it| it.group_interval.value),
                GROUP_INTERVAL,
            )?,
            each_alone,
            group_by: node.place_for("group_by"),
            matchers: matchers(node, "match", "match_re", "matchers")?,
            goes_on: node.flag("continue")?.unwrap_or(false),
            routes: Vec::new(),
            silent,
        };
        for child in node.list("routes")? {
            let child = Route::read(&child, Some(&route), receivers)?;
            route.routes.push(child);
        }
        Ok(route)
    }
}

fn matchers(node: &Node<'_>, equal: &str, like: &str, texts: &str) -> Result<Vec<Matcher>, Wrong> {
    let mut all = Vec::new();
    for (key, op) in [(equal, Op::Equal), (like, Op::Like)] {
        all.extend(node.texts(key)?.iter().map(|(label, value)| Matcher::new(label, op, value)));
    }
    let written = match node.get(texts)? {
        Some(one) if one.is_text() => vec![one],
        Some(_) => node.list(texts)?,
        None => Vec::new(),
    };
    for matcher in written {
        all.extend(parse(&matcher.as_text()?).map_err(|message| matcher.wrong(message))?);
    }
    Ok(all)
}

fn ways<'r>(route: &'r Route, labels: &Labels) -> Option<Vec<Way<'r>>> {
    let unsure: Vec<&Matcher> =
        route.matchers.iter().filter(|matcher| matcher.holds(labels) == Holds::Perhaps).collect();
    if route.matchers.iter().any(|matcher| matcher.holds(labels) == Holds::No) {
        return Some(vec![Way::default()]);
    }
    // Each way through the children so far, and whether it ends there.
    let mut open = vec![(Way::default(), false)];
    for child in &route.routes {
        let through = ways(child, labels)?;
        let mut next = Vec::new();
        for (way, ended) in open {
            if ended {
                next.push((way, true));
                continue;
            }
            for more in &through {
                let mut longer = way.clone();
                longer.conditions.extend(more.conditions.iter().cloned());
                longer.routes.extend(&more.routes);
                // The same matcher on two routes holds for both or for neither.
                let denied = |it: &String| longer.conditions.contains(&format!("not {it}"));
                if !longer.conditions.iter().any(denied) {
                    next.push((longer, !more.routes.is_empty() && !child.goes_on));
                }
            }
        }
        if next.len() > MOST_WAYS {
            return None;
        }
        open = next;
    }
    let demanded = unsure.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut all: Vec<Way<'r>> = open
        .into_iter()
        .map(|(mut way, _)| {
            if way.routes.is_empty() {
                way.routes.push(route);
            }
            way.conditions.extend((!unsure.is_empty()).then(|| demanded.clone()));
            way
        })
        .collect();
    if !unsure.is_empty() {
        all.push(Way { conditions: [format!("not {demanded}")].into(), routes: Vec::new() });
    }
    Some(all)
}
