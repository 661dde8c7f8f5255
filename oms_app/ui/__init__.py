"""The page. It knows requests and results, never torch: the studio is handed in."""
