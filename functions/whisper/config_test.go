package whisper

import (
	"slices"
	"strings"
	"testing"
	"time"

	"parley.internal/shared/config"
	"parley.internal/shared/delivery"
	"parley.internal/shared/topology"
)

func TestConfig(t *testing.T) {
	tests := []struct {
		name    string
		environ []string
		want    string // in the error; empty for none
	}{
		{"nothing of Twitch", nil, ""},
		{"all", []string{"TWITCH_CLIENT_ID=c", "TWITCH_CLIENT_SECRET=s", "CREDENTIAL_KEY=file:k", "TWITCH_BOT_USER_ID=9"}, ""},
		{"bot without client", []string{"TWITCH_BOT_USER_ID=9"}, ""},
		{"client without secret", []string{"TWITCH_CLIENT_ID=c", "CREDENTIAL_KEY=file:k"}, "TWITCH_CLIENT_SECRET: "},
		{"a login instead of an id", []string{"TWITCH_BOT_USER_ID=parley"}, "TWITCH_BOT_USER_ID: "},
		{"a token in the clear", []string{"TWITCH_API_URL=http://example.com"}, "TWITCH_API_URL: "},
		{"no time", []string{"TWITCH_API_TIMEOUT=0s"}, "TWITCH_API_TIMEOUT: "},
		{"too long", []string{"TWITCH_API_TIMEOUT=16s"}, "TWITCH_API_TIMEOUT: "},
		{"no whispers", []string{"WHISPER_PER_SECOND=0"}, "WHISPER_PER_SECOND: "},
		{"too many", []string{"WHISPER_PER_MINUTE=1001"}, "WHISPER_PER_MINUTE: "},
		{"nobody new", []string{"WHISPER_NEW_RECIPIENTS_PER_DAY=-1"}, "WHISPER_NEW_RECIPIENTS_PER_DAY: "},
	}
	for _, tt := range tests {
		_, err := config.Load[Config](append(tt.environ, "GOOGLE_CLOUD_PROJECT=p"))
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %q", tt.name, err, tt.want)
		}
	}
	for _, v := range config.Describe[Config]() {
		if v.Help == "" {
			t.Errorf("%s is not explained", v.Name)
		}
	}
}

func TestDefaultLimitsAreTwitchs(t *testing.T) {
	c, err := config.Load[Config]([]string{"GOOGLE_CLOUD_PROJECT=p"})
	if err != nil {
		t.Fatal(err)
	}
	if want := (LimitsConfig{NewPerDay: 40, PerSecond: 3, PerMinute: 100}); c.Limits != want {
		t.Errorf("limits = %+v; want %+v", c.Limits, want)
	}
}

// The subscription has to leave the function the time and the attempts that it counts on.
func TestTimesFitTheSubscription(t *testing.T) {
	i := slices.IndexFunc(topology.Subscriptions(), func(s topology.Subscription) bool { return s.Name == Step })
	if i < 0 {
		t.Fatal("the topology has no subscription of this name")
	}
	s := topology.Subscriptions()[i]
	if s.Function != Step || s.Topic != topology.Egress || s.Filter != `attributes.route = "whisper"` || !s.Ordered {
		t.Errorf("subscription = %+v", s)
	}
	if longest := workTime + settleTime + storeTime; longest >= s.AckDeadline() || longest >= delivery.ClaimLease {
		t.Errorf("a whisper may take %s; the acknowledgement deadline is %s, a claim lasts %s", longest, s.AckDeadline(), delivery.ClaimLease)
	}
	if 2*maxTimeout+tokenTime > workTime {
		t.Errorf("two requests and a new token may take longer than %s", workTime)
	}
	if s.MaxDeliveryAttempts != maxAttempts || s.MinBackoff() != minBackoff {
		t.Errorf("attempts %d, back-off from %s; want %d, %s", s.MaxDeliveryAttempts, s.MinBackoff(), maxAttempts, minBackoff)
	}
	// the back-off grows to its maximum; most of the attempts wait that long
	if all := time.Duration(maxAttempts/2) * s.MaxBackoff(); all < 4*2*time.Minute {
		t.Errorf("the attempts are used up after about %s, too near to EGRESS_DEADLINE", all)
	}
}
