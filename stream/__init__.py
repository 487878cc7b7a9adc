"""All that moves: topics, state, time, metrics. Calls `models`, never the other way round."""
