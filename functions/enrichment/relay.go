package enrichment

import (
	"errors"
	"fmt"

	"parley.internal/shared/answer"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

// RelayConfig says whose messages are not relayed.
type RelayConfig struct {
	Ignore []string `env:"RELAY_IGNORE" help:"Users (platform:id, separated by commas) whose messages are never relayed: bridges, and bots of other communities."`
}

// Validate checks what the types cannot.
func (c RelayConfig) Validate() error {
	var errs []error
	for _, id := range c.Ignore {
		if _, err := identity.Parse(id); err != nil {
			errs = append(errs, fmt.Errorf("RELAY_IGNORE: %w", err))
		}
	}
	return errors.Join(errs...)
}

func (c RelayConfig) ignored() map[string]bool {
	m := map[string]bool{}
	for _, id := range c.Ignore {
		m[id] = true
	}
	return m
}

// mustNotRelay reports whether an event must not be relayed: it was relayed before, no person said it, or who said it is one of
// those whom the configuration names.
func (f *Function) mustNotRelay(e *event.Event, id identity.UserID) bool {
	return answer.WasRelayed(e) || e.Message != nil && !isUserMessage(e) || f.notRelayed[id.String()]
}
