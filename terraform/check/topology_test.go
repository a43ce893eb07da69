package check

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"parley.internal/shared/topology"
)

// prefix returns the bus prefix in the environment of a deployment.
func prefix(t *testing.T, d *deployment) topology.Prefix {
	t.Helper()
	p, err := topology.ParsePrefix(d.one(t, `google_cloudfunctions2_function.function["dlq"]`).text("service_config.0.environment_variables.BUS_PREFIX"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestEveryTopicAndSubscriptionExistsOnce(t *testing.T) {
	each(t, func(t *testing.T, d *deployment) {
		p := prefix(t, d)
		count := map[string]int{}
		for _, r := range d.all("google_pubsub_topic") {
			count[r.text("id")]++
		}
		for _, r := range d.all("google_pubsub_subscription") {
			count[r.text("id")]++
		}
		want := map[string]int{}
		for _, name := range topology.Topics() {
			want[p.Topic(project, name).String()] = 1
		}
		for _, s := range topology.Subscriptions() {
			want[p.Subscription(project, s.Name).String()] = 1
		}
		if !maps.Equal(count, want) {
			t.Errorf("topics and subscriptions\n got %v\nwant %v", count, want)
		}
	})
}

func TestSubscriptionsAgreeWithTheTopology(t *testing.T) {
	each(t, func(t *testing.T, d *deployment) {
		p := prefix(t, d)
		push := d.one(t, "google_service_account.push").text("email")
		for _, s := range topology.Subscriptions() {
			r := d.one(t, fmt.Sprintf("google_pubsub_subscription.subscription[%q]", s.Name))
			got := topology.Subscription{
				Name: s.Name, Topic: s.Topic, Function: s.Function,
				Filter: r.text("filter"), Ordered: r.at("enable_message_ordering") == true,
				AckDeadlineSeconds:  r.number("ack_deadline_seconds"),
				MinBackoffSeconds:   seconds(t, r, "retry_policy.0.minimum_backoff"),
				MaxBackoffSeconds:   seconds(t, r, "retry_policy.0.maximum_backoff"),
				MaxDeliveryAttempts: r.number("dead_letter_policy.0.max_delivery_attempts"),
				RetentionSeconds:    s.RetentionSeconds, ExpirationSeconds: s.ExpirationSeconds,
			}
			if got != s {
				t.Errorf("subscription\n got %+v\nwant %+v", got, s)
			}
			if got, want := r.text("topic"), p.Topic(project, s.Topic).String(); got != want {
				t.Errorf("%s reads %s; want %s", s.Name, got, want)
			}
			if ttl := r.at("expiration_policy.0.ttl"); s.ExpirationSeconds == 0 && ttl != "" {
				t.Errorf("%s expires after %v; want never", s.Name, ttl)
			}
			if got, want := seconds(t, r, "message_retention_duration"), max(s.RetentionSeconds, 0); want != 0 && got != want || got == 0 {
				t.Errorf("%s keeps messages for %d s; want %d", s.Name, got, want)
			}
			if to, want := r.text("dead_letter_policy.0.dead_letter_topic"), p.Topic(project, topology.DeadLetter).String(); s.MaxDeliveryAttempts > 0 && to != want {
				t.Errorf("%s dead-letters to %q; want %s", s.Name, to, want)
			}
			// The path names the topic for the function. Internal ingress accepts Pub/Sub only at Cloud Run's own host.
			f := d.one(t, fmt.Sprintf("google_cloudfunctions2_function.function[%q]", s.Function))
			uri := f.text("service_config.0.uri")
			if got, want := r.text("push_config.0.push_endpoint"), uri+"/"+p.Topic(project, s.Topic).String(); got != want {
				t.Errorf("%s is pushed to %s; want %s", s.Name, got, want)
			}
			if got := r.text("push_config.0.oidc_token.0.service_account_email"); got != push {
				t.Errorf("%s is pushed as %q; want %s", s.Name, got, push)
			}
			if got := r.text("push_config.0.oidc_token.0.audience"); got != uri {
				t.Errorf("%s is pushed for the audience %q; want %s", s.Name, got, uri)
			}
			// After the deadline Pub/Sub pushes again, although the function is still at work.
			if got := f.number("service_config.0.timeout_seconds"); got < s.AckDeadlineSeconds {
				t.Errorf("%s has a timeout of %d s; its subscription %s waits for %d s", s.Function, got, s.Name, s.AckDeadlineSeconds)
			}
		}
	})
}

func TestFunctionsAcceptOnlyPubSub(t *testing.T) {
	each(t, func(t *testing.T, d *deployment) {
		want := map[string]bool{}
		for _, s := range topology.Subscriptions() {
			want[s.Function] = true
		}
		got := map[string]bool{}
		for _, f := range d.all("google_cloudfunctions2_function") {
			got[f.key()] = true
			if in := f.text("service_config.0.ingress_settings"); in != "ALLOW_INTERNAL_ONLY" {
				t.Errorf("%s takes requests from %q", f.key(), in)
			}
			if f.text("build_config.0.entry_point") != f.key() {
				t.Errorf("%s has the entry point %q", f.key(), f.text("build_config.0.entry_point"))
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("functions %v; want %v", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
		}
		for _, r := range d.all("google_cloud_run_v2_service_iam_member") {
			if r.text("member") == "allUsers" && !strings.HasSuffix(r.text("name"), "-gateway") {
				t.Errorf("%s is public", r.text("name"))
			}
		}
	})
}

func TestSweepTicks(t *testing.T) {
	d := full(t)
	job := d.one(t, "google_cloud_scheduler_job.sweep")
	if got, want := job.text("pubsub_target.0.topic_name"), prefix(t, d).Topic(project, topology.Sweep).String(); got != want {
		t.Errorf("the sweep's tick goes to %s; want %s", got, want)
	}
	if job.text("schedule") != "* * * * *" || job.text("pubsub_target.0.data") == "" {
		t.Errorf("sweep = %v", job.Values)
	}
}

func seconds(t *testing.T, r resource, path string) int {
	t.Helper()
	var n int
	if _, err := fmt.Sscanf(r.text(path), "%ds", &n); err != nil {
		t.Errorf("%s: %s is %q; want seconds", r.Address, path, r.text(path))
	}
	return n
}
