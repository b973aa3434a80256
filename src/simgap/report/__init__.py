"""Write the HTML page that shows the results of a study."""
