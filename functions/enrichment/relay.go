package enrichment

import (
	"errors"
	"fmt"

	"parley.internal/shared/answer"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

// RelayConfig configures the relay of messages between channels.
type RelayConfig struct {
	Ignore []string `env:"RELAY_IGNORE" help:"Users (platform:id, separated by commas) excluded from relays, such as bridges and bots of other communities."`
}

// Validate checks the user ids.
func (c RelayConfig) Validate() error {
	var errs []error
	for _, id := range c.Ignore {
		if _, err := identity.Parse(id); err != nil {
			errs = append(errs, fmt.Errorf("RELAY_IGNORE: %w", err))
		}
	}
	return errors.Join(errs...)
}

// ignored returns the set of excluded users.
func (c RelayConfig) ignored() map[string]bool {
	m := map[string]bool{}
	for _, id := range c.Ignore {
		m[id] = true
	}
	return m
}

// mustNotRelay reports whether an event is excluded from relays: it was relayed before, its message is not of a person,
// or the configuration excludes the user.
func (f *Function) mustNotRelay(e *event.Event, id identity.UserID) bool {
	return answer.WasRelayed(e) || e.Message != nil && !isUserMessage(e) || f.notRelayed[id.String()]
}
