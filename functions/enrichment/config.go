package enrichment

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"parley.internal/shared/config"
	"parley.internal/shared/delivery"
)

// Config is the function's whole configuration, read from environment variables.
type Config struct {
	Deployment config.Deployment
	Egress     delivery.Config
	Rules      RulesConfig
	Users      UsersConfig
	Relay      RelayConfig
	Links      LinksConfig
}

// RulesConfig configures the cache of rules.
type RulesConfig struct {
	TTL time.Duration `env:"RULES_CACHE_TTL" envDefault:"1m" help:"How long rules are cached before they are read again; at least 1s."`
}

// Validate checks the ranges of the values.
func (c RulesConfig) Validate() error {
	if c.TTL < time.Second {
		return fmt.Errorf("RULES_CACHE_TTL: %s is less than 1s", c.TTL)
	}
	return nil
}

// UsersConfig configures how events change user documents.
type UsersConfig struct {
	SessionLength time.Duration     `env:"SESSION_LENGTH" envDefault:"24h" help:"A user's session ends after this long without an event of the user."`
	DiscordRoles  map[string]string `env:"DISCORD_ROLES" envKeyValSeparator:"=" help:"Maps Discord roles, by name or id, to roles: Moderators=moderator,Server Booster=subscriber for example. Unlisted roles are ignored."`
}

// Validate checks the ranges of the values.
func (c UsersConfig) Validate() error {
	var errs []error
	if c.SessionLength <= 0 {
		errs = append(errs, fmt.Errorf("SESSION_LENGTH: %s is not greater than 0", c.SessionLength))
	}
	for name, role := range c.DiscordRoles {
		if strings.TrimSpace(name) == "" || strings.TrimSpace(role) == "" {
			errs = append(errs, fmt.Errorf("DISCORD_ROLES: %q=%q lacks a name or a role", name, role))
		}
	}
	return errors.Join(errs...)
}

// discordRoles maps the configured names and ids, in lower case, to roles. Lower case, because operators capitalize
// names in different ways.
func (c UsersConfig) discordRoles() map[string]string {
	m := make(map[string]string, len(c.DiscordRoles))
	for name, role := range c.DiscordRoles {
		m[strings.ToLower(strings.TrimSpace(name))] = strings.TrimSpace(role)
	}
	return m
}
