package topology_test

import (
	"slices"
	"strings"
	"testing"

	"parley.internal/shared/topology"
)

func TestConstantsAreTheTopicsOfTheFile(t *testing.T) {
	want := []topology.Topic{topology.Ingress, topology.Enriched, topology.Egress, topology.DeadLetter, topology.Sweep}
	if got := topology.Topics(); !slices.Equal(got, want) {
		t.Errorf("topology.json has %v; the constants are %v", got, want)
	}
}

func TestSubscriptionsAreWithinPubSubsLimits(t *testing.T) {
	subs := append(topology.Subscriptions(), topology.Gateway(strings.Repeat("f", 128)))
	seen := map[string]bool{}
	for _, s := range subs {
		if seen[s.Name] {
			t.Errorf("%s is repeated", s.Name)
		}
		seen[s.Name] = true
		if !slices.Contains(topology.Topics(), s.Topic) {
			t.Errorf("%s: topic %s is not in the topology", s.Name, s.Topic)
		}
		if len(s.Filter) > topology.MaxFilter {
			t.Errorf("%s: filter of %d bytes", s.Name, len(s.Filter))
		}
		if s.AckDeadlineSeconds < 10 || s.AckDeadlineSeconds > 600 {
			t.Errorf("%s: acknowledgement deadline of %d s", s.Name, s.AckDeadlineSeconds)
		}
		if s.MinBackoffSeconds > s.MaxBackoffSeconds || s.MaxBackoffSeconds > 600 {
			t.Errorf("%s: back-off from %d to %d s", s.Name, s.MinBackoffSeconds, s.MaxBackoffSeconds)
		}
		if s.MaxDeliveryAttempts != 0 && (s.MaxDeliveryAttempts < 5 || s.MaxDeliveryAttempts > 100) {
			t.Errorf("%s: %d attempts", s.Name, s.MaxDeliveryAttempts)
		}
		if s.RetentionSeconds != 0 && s.RetentionSeconds < 600 {
			t.Errorf("%s: retention of %d s", s.Name, s.RetentionSeconds)
		}
		if s.ExpirationSeconds != 0 && s.ExpirationSeconds < 86400 {
			t.Errorf("%s: expiration of %d s", s.Name, s.ExpirationSeconds)
		}
	}
}

func TestPrefixIsAppliedOnce(t *testing.T) {
	for _, text := range []string{"", "staging.", "a"} {
		p, err := topology.ParsePrefix(text)
		if err != nil {
			t.Fatal(err)
		}
		name := p.Topic("proj", topology.Ingress).String()
		if want := "projects/proj/topics/" + text + "internal.ingress.v1"; name != want {
			t.Errorf("Topic = %q; want %q", name, want)
		}
		if got, ok := p.LookupTopic(name); !ok || got != topology.Ingress {
			t.Errorf("LookupTopic(%q) = %q, %v", name, got, ok)
		}
		if got, want := p.Subscription("proj", "dlq").String(), "projects/proj/subscriptions/"+text+"dlq"; got != want {
			t.Errorf("Subscription = %q; want %q", got, want)
		}
	}
}

func TestLookupTopicKnowsOnlyTheOwnDeployment(t *testing.T) {
	p, _ := topology.ParsePrefix("staging.")
	for _, name := range []string{"projects/p/topics/internal.ingress.v1", "projects/p/topics/staging.staging.internal.ingress.v1", "projects/p/topics/staging.other", ""} {
		if got, ok := p.LookupTopic(name); ok {
			t.Errorf("LookupTopic(%q) = %q; want none", name, got)
		}
	}
}

func TestTopicOfSubscription(t *testing.T) {
	p, _ := topology.ParsePrefix("staging.")
	for name, want := range map[string]topology.Topic{
		"staging.personality": topology.Enriched, "projects/p/subscriptions/staging.enrichment": topology.Ingress, "personality": "", "staging.other": "",
	} {
		if got, ok := p.TopicOf(name); got != want || ok != (want != "") {
			t.Errorf("TopicOf(%q) = %q, %v; want %q", name, got, ok, want)
		}
	}
}

func TestParsePrefixRefuses(t *testing.T) {
	for _, s := range []string{"1", "goog-x", "with space", "a/b", strings.Repeat("a", 65), "é"} {
		if _, err := topology.ParsePrefix(s); err == nil {
			t.Errorf("ParsePrefix(%q) took it", s)
		}
	}
}

func TestValidInstance(t *testing.T) {
	for id, want := range map[string]bool{
		"a1b2": true, strings.Repeat("0", 120): true, "": false, `x" OR attributes:a`: false, strings.Repeat("0", 200): false,
	} {
		if got := topology.ValidInstance(id); got != want {
			t.Errorf("ValidInstance(%q) = %v", id, got)
		}
	}
}
