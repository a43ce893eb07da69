package playground

// Routes returns the patterns of the API.
func Routes() (patterns []string) {
	for _, rt := range append(twitchAPI{}.routes(), discordAPI{}.routes()...) {
		patterns = append(patterns, rt.pattern)
	}
	return patterns
}
