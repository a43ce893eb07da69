package rule_test

import (
	"fmt"
	"time"

	"parley.internal/functions/enrichment/rule"
	"parley.internal/shared/event"
	"parley.internal/shared/store"
)

func Example() {
	rules, failures := rule.Compile([]store.Rule{
		{
			ID: "roles", Enabled: true, When: `event.message.text == "!roles"`,
			Candidates: []store.RuleCandidate{{Text: "{{ event.user.displayName }}: {{ event.user.roles.join(', ') }}"}},
		},
		{ID: "typo", Enabled: true, When: `event.mesage.text == ""`, Slip: []string{rule.Personality}},
	}, nil)
	for _, f := range failures {
		fmt.Println("left out:", f.ID)
	}
	e := &event.Event{
		Message: &event.Message{Text: "!roles"},
		User:    &event.User{DisplayName: "Ada", Roles: []string{"moderator", "vip"}},
	}
	outcome := rules.Evaluate(e, time.Now(), func(string) bool { return false })
	if a, ok := outcome.Answer(); ok {
		fmt.Println(a.Step(), "says", a.Candidates[0].Text)
	}
	// Output:
	// left out: typo
	// rule:roles says Ada: moderator, vip
}
