//! By which prefixes regions are reached, as people say it.

use leeward_common::api::{
    problem::Code,
    v1::{Reach, Reaches, Removed},
};

use super::defined::Living;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_which_prefixes_a_region_is_reached_is_said_and_taken_back() {
    let living = Living::start();
    let of_oregon = |told: &Reaches| {
        let mut regions = told.regions.iter();
        regions
            .find(|own| own.region_id.as_str() == "oregon")
            .cloned()
            .unwrap()
    };
    let before = of_oregon(&living.get("/v1/bgp/reach").await);
    assert_eq!((before.prefixes.len(), before.who), (0, None), "learned");
    let path = "/v1/bgp/reach/oregon";
    let spec =
        r#"{"prefixes":["198.51.100.0/24","2001:db8::/32"],"origins":[64500],"why":"new uplink"}"#;
    let answer = living.put(path, spec).await;
    assert_eq!(answer.status, 201);
    let reach: Reach = answer.json();
    assert_eq!(reach.spec.origins, [64_500]);
    assert_eq!(living.get::<Reach>(path).await, reach);
    let told = of_oregon(&living.get("/v1/bgp/reach").await);
    assert_eq!((told.prefixes.len(), told.who), (2, Some(reach.who)));
    for (body, says) in [
        (r#"{"prefixes":[]}"#, "1 to 1024 prefixes"),
        (
            r#"{"prefixes":["198.51.100.0/24","198.51.100.0/24"]}"#,
            "none twice",
        ),
        (
            r#"{"prefixes":["198.51.100.0/24","0.0.0.0/0"]}"#,
            "prefixes[1] is a default route",
        ),
        (r#"{"prefixes":["198.51.100.1/24"]}"#, "is not a prefix"),
    ] {
        let refused = living.put(path, body).await;
        assert!([400, 422].contains(&refused.status.as_u16()), "{body}");
        assert!(refused.text().contains(says), "{body}");
    }
    let unknown = living.put("/v1/bgp/reach/orgon", spec).await;
    assert!(unknown.text().contains("unknown_region"));
    living.send("DELETE", path, "", &[]).await.json::<Removed>();
    assert_eq!(
        living.aggregator.get(path).await.problem(404).code,
        Code::UnknownReach
    );
    assert_eq!(of_oregon(&living.get("/v1/bgp/reach").await).who, None);
    living.stop().await;
}
