package stack

import (
	"fmt"
	"strings"
	"testing"
)

// TestOddInputsInSeeds holds seed files with the documented result: a part of the error, or no error.
func TestOddInputsInSeeds(t *testing.T) {
	rule := func(members string) string { return "rules: {r: {enabled: true, " + members + "}}" }
	answer := func(template string) string { return rule(`when: 'true', candidates: [{text: '` + template + `'}]`) }
	when := func(condition string) string { return rule(`when: '` + condition + `', candidates: [{text: a}]`) }
	to := func(destination, channel string) string {
		return rule(fmt.Sprintf("when: 'true', candidates: [{text: a}], egress: {to: [{destination: %s, channel: %q}]}", destination, channel))
	}
	action := func(members string) string { return rule("when: 'true', action: {" + members + "}") }
	type row struct{ name, in, want string }
	rows := []row{
		{"nothing", "", "it is empty"},
		{"a comment", "# nothing", "it is empty"},
		{"white space", " \n\n", "it is empty"},
		{"a text", "hello", "read the seed"},
		{"a list", "[users]", "read the seed"},
		{"a tab", "users:\n\ttwitch:1: {}", "read the seed"},
		{"an open bracket", "users: {", "read the seed"},
		{"an open quote", `users: {"twitch:1: {}}`, "read the seed"},
		{"a NUL", "users: {\x00}", "read the seed"},
		{"invalid UTF-8", "users: {twitch:1: {displayName: \"\xff\"}}", "read the seed"},
		{"a name twice", "users: {}\nusers: {}", "read the seed"},
		{"a user twice", "users: {twitch:1: {}, twitch:1: {}}", "read the seed"},
		{"another case", "Users: {}", "Users"},
		{"an unknown collection", "tokens: {}", "tokens"},
		{"users in a list", "users: [twitch:1]", "read the seed"},
		{"a user as a text", "users: {twitch:1: Ada}", "read the seed"},
		{"a user of null", "users: {twitch:1: null}", ""},
		{"no users", "users: null", ""},
		{"an anchor to nothing", "users: *x", "read the seed"},
		{"an id without a platform", `users: {"1": {}}`, "users/1"},
		{"an empty id", `users: {"": {}}`, "users/"},
		{"an id without a number", `users: {"twitch:": {}}`, "users/twitch:"},
		{"a name of null", "users: {twitch:1: {displayName: null}}", ""},
		{"a name as a number", "users: {twitch:1: {displayName: 7}}", "displayName: not a text"},
		{"roles as a text", "users: {twitch:1: {roles: moderator}}", "roles: not a list"},
		{"a role as a list", "users: {twitch:1: {roles: [[a]]}}", "roles.0: not a text"},
		{"roles of null", "users: {twitch:1: {roles: null}}", ""},
		{"a count as a text", "users: {twitch:1: {sessionCount: many}}", "sessionCount: not a whole number"},
		{"a time as a text", "users: {twitch:1: {lastSeenAt: '2026-01-01'}}", "lastSeenAt: not a time"},
		{"an unknown member", "users: {twitch:1: {name: Ada}}", `unknown field "name"`},
		{"a link without a user", "identities: {discord:1: {}}", "identities/discord:1"},
		{"a link to itself", "identities: {discord:1: {user: 'discord:1'}}", "linked to itself"},
		{"a text of a personality as a list", "personalities: {p: {text: [a]}}", "text: not a text"},
		{"a version as a text", "personalities: {p: {version: two}}", "version: not a whole number"},
		{"an enabled rule as a text", "rules: {r: {enabled: 'yes'}}", "enabled: not true or false"},
		{"a rule of null", "rules: {r: null}", ""},
		{"a disabled rule with errors", "rules: {r: {enabled: false, when: 'event.'}}", ""},
		{"a rule without a condition", rule("candidates: [{text: a}]"), "when"},
		{"a priority as a text", rule("when: 'true', priority: high, candidates: [{text: a}]"), "priority: not a number"},
		{"a priority that is not a number", rule("when: 'true', priority: .nan, candidates: [{text: a}]"), "priority"},
		{"a negative pause", rule("when: 'true', cooldownSeconds: -1, candidates: [{text: a}]"), "cooldownSeconds"},
		{"a pause of a year", rule("when: 'true', cooldownSeconds: 31536000, candidates: [{text: a}]"), "cooldownSeconds"},
		{"an unknown step", rule("when: 'true', slip: [nowhere]"), "slip.0"},
		{"an unknown audience", rule("when: 'true', candidates: [{text: a}], egress: {audience: everybody}"), "egress.audience"},
		{"too many candidates", rule("when: 'true', candidates: [" + strings.Repeat("{text: a},", 9) + "]"), "candidates"},
		{"no candidate's text", rule("when: 'true', candidates: [{text: ''}]"), "candidates.0.text"},
		{"an unknown destination", to("irc", "#parley"), "egress.to.0"},
		{"a channel of another platform", to("twitch", "discord:1"), "egress.to.0"},
		{"a channel without a name", to("twitch", "twitch:"), "egress.to.0"},
		{"an unknown action", action("action: kick, userId: '1'"), "action"},
		{"an action on nobody", action("action: ban"), "action"},
		{"an action on a template without an end", action("action: ban, userId: '{{ event.userId'"), "action.userId"},
	}
	for _, condition := range []string{"", " ", "event.", "event.nothing", "true &&", "1", "\"true\"", "event.message.text", "event.message.text = \"a\"", "event.message.text.matches(\"[\")", "nothing(event)", "event.message.mentionsBot == \"yes\"", "\ufeff", strings.Repeat("(", 1000), strings.Repeat("a", 5000)} {
		rows = append(rows, row{fmt.Sprintf("the condition %.20q", condition), when(condition), "rules/r: when"})
	}
	for _, condition := range []string{"true", " true ", "event.message.mentionsBot", "event.message.text == \"\\u200b\"", "event.payload.a.b.c == 1", "\"\" == \"\"", "event.user.roles == []"} {
		rows = append(rows, row{fmt.Sprintf("the condition %.20q", condition), when(condition), ""})
	}
	for _, template := range []string{"{{", "{{ }}", "{{ event. }}", "{{ event.user }", "{{ {{ }} }}", "a {{ event.nothing }}", "{{ } }}"} {
		rows = append(rows, row{fmt.Sprintf("the template %q", template), answer(template), "rules/r: candidates.0.text"})
	}
	for _, template := range []string{"a", "}}", "{ }", "{{ 1 }}", "{{ event.user.displayName }}", "{{ \"}}\" }}", "❤️", "\u200b{{ event.message.text }}"} {
		rows = append(rows, row{fmt.Sprintf("the template %q", template), answer(template), ""})
	}
	for _, tt := range rows {
		_, err := ParseSeed([]byte(tt.in))
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %q", tt.name, err, tt.want)
		}
	}
}
