"""Rally's import/export API: files in, files out, every row accounted for."""
