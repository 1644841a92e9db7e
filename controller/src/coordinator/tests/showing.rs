//! What people see while a run goes on.

use super::*;

fn output(order: &v1::OrderContent, path: &str, text: &'static str) -> v1::OutputChunk {
    v1::OutputChunk {
        run: order.run.clone(),
        path: path.into(),
        attempt: 1,
        data: text.into(),
        ..Default::default()
    }
}

/// What a watcher sees until the run ends.
async fn seen(watch: crate::coordinator::RunEvents) -> Vec<String> {
    let events: Vec<v1::RunEvent> = watch.map(Result::unwrap).collect().await;
    let lines = events.into_iter().filter_map(|event| match event.what? {
        v1::run_event::What::Happened(happened) => Some(happened.text),
        v1::run_event::What::Output(chunk) => Some(String::from_utf8_lossy(&chunk.data).into_owned()),
        v1::run_event::What::Run(_) => None,
    });
    lines.collect()
}

#[tokio::test]
async fn output_is_shown_after_its_step_began_though_it_is_faster() {
    let bench = Bench::new(Mode::Diagnose).await;
    let mut agent = FakeAgent::join(&bench).await;
    let run = bench.signal(Status::Firing).await.remove(0).run.unwrap();
    let watch = bench.handle.watch(run, 0).await.unwrap();
    let order = agent.order().await;
    agent.accept(&bench, &order).await;
    bench.handle.output(host(), output(&order, "diagnose/usage", "91 %"));
    bench.handle.output(host(), output(&order, "diagnose/never-began", "lost"));
    agent.step(&bench, &order, "diagnose/usage").await;
    agent.plan(&bench, &order).await;
    agent.done(&bench, &order, NOT_RUN).await;
    let lines = seen(watch).await;
    let place =
        |text: &str| lines.iter().position(|line| line == text).unwrap_or_else(|| panic!("{lines:#?}"));
    assert!(place("diagnose/usage started") < place("91 %"), "{lines:#?}");
    assert!(place("91 %") < place("diagnose/usage succeeded"), "{lines:#?}");
    // Nothing is swallowed.
    place("lost");
    bench.check().await;
}

#[tokio::test]
async fn an_attempt_that_is_reported_twice_is_shown_once() {
    let bench = Bench::new(Mode::Auto).await;
    let mut agent = FakeAgent::join(&bench).await;
    let run = bench.signal(Status::Firing).await.remove(0).run.unwrap();
    diagnose(&bench, &mut agent).await;
    let order = agent.order().await;
    agent.accept(&bench, &order).await;
    agent.step(&bench, &order, "remediate/vacuum").await;
    // Under new numbers, as after a journal was lost.
    agent.step(&bench, &order, "remediate/vacuum").await;
    bench.pass(1);
    let failed = v1::StepEnded {
        path: "remediate/vacuum".into(),
        attempt: 1,
        outcome: "failed".into(),
        ..Default::default()
    };
    agent.report(&bench, &order, v1::report::What::StepEnded(failed)).await;
    let how = v1::segment_ended::How::Done(v1::SegmentDone {});
    agent.end(&bench, &order, how, PASSED, true).await;
    bench.until("ended verified").await;
    let lines = seen(bench.handle.watch(run, 0).await.unwrap()).await;
    let times = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    assert_eq!(
        (times("vacuum started"), times("vacuum succeeded"), times("vacuum failed")),
        (1, 1, 0),
        "{lines:#?}"
    );
    bench.check().await;
}

#[tokio::test]
async fn a_signal_names_the_host_it_was_resolved_to() {
    let bench = Bench::new(Mode::Observe).await;
    let mut foreign = bench.alert(Status::Firing, "f2");
    foreign.labels.insert("instance".into(), "elsewhere".into());
    bench.handle.signal(vec![bench.alert(Status::Firing, "f1"), foreign]).await.unwrap();
    let hosts: Vec<String> = bench.handle.signals(10).await.unwrap().into_iter().map(|it| it.host).collect();
    assert!(hosts.contains(&"web-1".to_owned()) && hosts.contains(&String::new()), "{hosts:?}");
    bench.check().await;
}
