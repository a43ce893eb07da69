package enrichment

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"parley.internal/shared/config"
	"parley.internal/shared/delivery"
)

// Config is everything that the function is told by its environment.
type Config struct {
	Deployment config.Deployment
	Egress     delivery.Config
	Rules      RulesConfig
	Users      UsersConfig
	Relay      RelayConfig
	Links      LinksConfig
}

// RulesConfig says how rules are kept.
type RulesConfig struct {
	TTL time.Duration `env:"RULES_CACHE_TTL" envDefault:"1m" help:"How long the rules are remembered before they are read again."`
}

// Validate checks what the types cannot.
func (c RulesConfig) Validate() error {
	if c.TTL < time.Second {
		return fmt.Errorf("RULES_CACHE_TTL: %s is less than 1s", c.TTL)
	}
	return nil
}

// UsersConfig says how what happens becomes what is known of a user.
type UsersConfig struct {
	SessionLength time.Duration     `env:"SESSION_LENGTH" envDefault:"24h" help:"A user's session ends after this long without anything from them."`
	DiscordRoles  map[string]string `env:"DISCORD_ROLES" envKeyValSeparator:"=" help:"What roles on Discord mean, by their names or ids: Moderators=moderator,Server Booster=subscriber for example. Others mean nothing."`
}

// Validate checks what the types cannot.
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

// discordRoles is the configured meaning of roles by their names in lower case: people write them in many ways.
func (c UsersConfig) discordRoles() map[string]string {
	m := make(map[string]string, len(c.DiscordRoles))
	for name, role := range c.DiscordRoles {
		m[strings.ToLower(strings.TrimSpace(name))] = strings.TrimSpace(role)
	}
	return m
}
