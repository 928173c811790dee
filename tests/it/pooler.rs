//! Through a PgBouncer that lends a connection for one transaction at a time: nothing may be kept on a connection.

use serde_json::json;
use tokio_postgres::NoTls;

use crate::support::pooler::Pooler;
use crate::support::worker::paybus;
use crate::support::{Behaviour, Command, WorkerSetup, World};

fn pooled(pooler: &Pooler) -> WorkerSetup {
    WorkerSetup::default().set("database.url", pooler.url()).set("database.pooler", "transaction")
}

/// Two workers with more connections than the pooler has, one of which dies: every guarantee holds as without a pooler.
#[tokio::test]
async fn workers_share_the_few_connections_of_a_pooler() {
    let world = World::new().await;
    let Some(pooler) = Pooler::start(&world, 3).await else { return };
    let culprit = Command::charge("http", "10.00", "EUR");
    let dying = world
        .worker_with(pooled(&pooler).variable("PAYBUS_FAILPOINT", &format!("committed:{}", culprit.payment)))
        .await;
    let _other = world.worker_with(pooled(&pooler)).await;
    let charges: Vec<Command> = (0..60).map(|_| Command::charge("http", "10.00", "EUR")).collect();
    for charge in charges.iter().step_by(7) {
        world.gateway.plan(charge.payment, vec![Behaviour::Status(503, None), Behaviour::HangAfter]);
    }
    let refunds: Vec<Command> =
        charges.iter().map(|charge| charge.then("payment.refund", json!({"amount": "3.00"}))).collect();
    world.publish_all(&charges).await;
    world.publish_all(&refunds).await;
    world.publish(&culprit).await;
    assert!(!dying.wait().await.success());
    for answer in world.final_events(&charges).await {
        assert_eq!(answer.status(), "confirmed", "{}", answer.line());
    }
    for answer in world.final_events(&refunds).await {
        assert!(answer.code().is_empty(), "{}", answer.line());
    }
    assert_eq!(world.final_event(&culprit).await.status(), "confirmed");
    world.check_books().await;

    // Nothing of paybus is left on a connection that others get.
    let (client, connection) = tokio_postgres::connect(pooler.url(), NoTls).await.expect("a connection");
    let connection = tokio::spawn(connection);
    for _ in 0..10 {
        let messages = client
            .simple_query("SELECT current_setting('search_path') || ' ' || count(*) FROM pg_prepared_statements")
            .await
            .expect("an answer");
        let row = messages.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        assert_eq!(row, Some("\"$user\", public 0"));
    }
    connection.abort();
}

/// The types that the pooler's servers know by number have other numbers after a backup was restored.
#[tokio::test]
async fn a_schema_that_was_made_anew_is_worked_on_through_a_pooler() {
    let world = World::new().await;
    let Some(pooler) = Pooler::start(&world, 2).await else { return };
    let _worker = world.worker_with(pooled(&pooler)).await;
    assert_eq!(world.run(&Command::charge("http", "10.00", "EUR")).await.status(), "confirmed");
    world.make_schema_anew().await;
    for _ in 0..4 {
        assert_eq!(world.run(&Command::charge("http", "10.00", "EUR")).await.status(), "confirmed");
    }
}

/// The command line works through the pooler as well; only a migration needs a direct connection.
#[tokio::test]
async fn the_command_line_works_through_a_pooler() {
    let world = World::new().await;
    let Some(pooler) = Pooler::start(&world, 2).await else { return };
    let worker = world.worker_with(pooled(&pooler)).await;
    let charge = Command::charge("http", "10.00", "EUR");
    world.run(&charge).await;
    let mut settings = world.settings().clone();
    let direct = settings.insert("database.url".to_owned(), pooler.url().to_owned()).expect("an address");
    settings.insert("database.pooler".to_owned(), "transaction".to_owned());
    let run = |settings: &std::collections::BTreeMap<String, String>, arguments: &[&str]| {
        let output = paybus(settings).args(arguments).output().expect("paybus");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), said)
    };
    let payment = charge.payment.to_string();
    for (arguments, expected) in [
        (vec!["show", payment.as_str()], "confirmed"),
        (vec!["events", "--payment", payment.as_str()], "payment.status_changed"),
        (vec!["check"], "schema and worker rights are in place"),
    ] {
        let (code, said) = run(&settings, &arguments);
        assert!(code == Some(0) && said.contains(expected), "{arguments:?}: {code:?} {said}");
    }
    let (code, said) = run(&settings, &["migrate", "--only", "database"]);
    assert!(code == Some(64) && said.contains("database.migrate_url"), "{code:?} {said}");
    settings.insert("database.migrate_url".to_owned(), direct);
    let (code, said) = run(&settings, &["migrate", "--only", "database"]);
    assert!(code == Some(0) && said.contains("up to date"), "{code:?} {said}");
    worker.drain().await;
    world.check_books().await;
}
