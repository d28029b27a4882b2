"""Pages and scripts for the browser, shipped as package data. No build step."""
