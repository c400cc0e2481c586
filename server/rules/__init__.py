"""Pure rules: functions of their arguments."""
