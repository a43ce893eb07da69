package deadletter_test

import (
	"maps"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"parley.internal/shared/deadletter"
	"parley.internal/shared/digest"
)

func TestAnnouncementSurvivesTheBus(t *testing.T) {
	original := map[string]string{"type": "chat.message", "correlationId": "c"}
	want := deadletter.Announcement{ID: "abc", Reason: deadletter.ModelFailed, Message: "timed out", Source: "personality", Attempts: 3, Topic: "internal.user.enriched.v1", Redrive: 2}
	got, attributes := deadletter.ParseAnnouncement(want.Attributes(original), "m1")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("announcement (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(original, attributes); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
}

func TestForwardedByPubSubIsExhausted(t *testing.T) {
	got, _ := deadletter.ParseAnnouncement(map[string]string{
		"CloudPubSubDeadLetterSourceSubscription":  "personality",
		"CloudPubSubDeadLetterSourceDeliveryCount": "10",
	}, "m1")
	want := deadletter.Announcement{ID: digest.Of("message", "m1"), Reason: deadletter.Exhausted, Source: "personality", Attempts: 10}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("announcement (-want +got):\n%s", diff)
	}
}

func TestLongErrorFitsAnAttribute(t *testing.T) {
	got := deadletter.Announcement{ID: "a", Reason: deadletter.ModelFailed, Message: strings.Repeat("é", 2000)}.Attributes(nil)
	for name, v := range got {
		if len(v) > 1024 || !utf8.ValidString(v) {
			t.Errorf("%s has %d bytes, valid %v", name, len(v), utf8.ValidString(v))
		}
	}
}

func TestStoredIDsStayTheSame(t *testing.T) {
	if digest.Of("a", "bc") == digest.Of("ab", "c") {
		t.Error("parts run into each other")
	}
	if got := digest.Of("a", "b"); got != "facdde7abf1eac5b301273ab2e282f79" { // in stored documents: it must not change
		t.Errorf("ID = %s", got)
	}
}

func TestRedrivenMessageKnowsItsDeadLetter(t *testing.T) {
	original := map[string]string{"type": "chat.message"}
	redriven := deadletter.MarkRedriven(original, "abc", 2)
	if got := deadletter.RedrivenID(redriven); got != "abc" || redriven[deadletter.AttrRedrive] != "2" {
		t.Errorf("RedrivenID(%v) = %q", redriven, got)
	}
	if diff := cmp.Diff(original, deadletter.OriginalAttributes(redriven)); diff != "" {
		t.Errorf("original attributes (-want +got):\n%s", diff)
	}
	for _, attributes := range []map[string]string{nil, original, {deadletter.AttrRedrive: "1"}, {"deadLetterId": "abc"}} {
		if got := deadletter.RedrivenID(attributes); got != "" {
			t.Errorf("RedrivenID(%v) = %q; want none", attributes, got)
		}
	}
	forwarded := maps.Clone(redriven)
	forwarded["CloudPubSubDeadLetterSourceSubscription"] = "personality"
	if a, _ := deadletter.ParseAnnouncement(forwarded, "m1"); a.ID != "abc" || a.Redrive != 2 || a.Reason != deadletter.Exhausted {
		t.Errorf("announcement of a forwarded message = %+v", a)
	}
}
